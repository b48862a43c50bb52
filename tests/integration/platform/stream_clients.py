"""What Python programs do with Pods: `python stream_clients.py official|kr8s KUBECONFIG POD` prints as JSON what came of it."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any


def official(kubeconfig: str, pod: str) -> dict[str, Any]:
    from kubernetes import client, config
    from kubernetes.stream import portforward, stream

    configuration = client.Configuration()
    config.load_kube_config(kubeconfig, client_configuration=configuration)
    with client.ApiClient(configuration) as api_client:
        api = client.CoreV1Api(api_client)
        wants = {"stdin": False, "stdout": True, "stderr": True, "tty": False}
        command = ["sh", "-c", "echo $COLOUR; echo oops >&2"]
        said = stream(api.connect_get_namespaced_pod_exec, pod, "default", command=command, **wants)

        command = ["sh", "-c", "read line; echo got $line; exit 4"]
        wants["stdin"] = True
        session = stream(
            api.connect_get_namespaced_pod_exec, pod, "default", command=command, _preload_content=False, **wants
        )
        session.write_stdin("it\n")
        session.run_forever(timeout=20)
        stdout, code = session.read_stdout(), session.returncode
        session.close()

        forwarding = portforward(api.connect_get_namespaced_pod_portforward, pod, "default", ports="8012")
        http = forwarding.socket(8012)
        http.setblocking(True)
        http.settimeout(20)
        http.sendall(b"GET /_/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        reply = http.recv(4096).decode().splitlines()[0]
        error = forwarding.error(8012)
        http.close()
        return {"said": sorted(said.split()), "stdout": stdout, "code": code, "reply": reply, "error": error}


async def kr8s(kubeconfig: str, pod: str) -> dict[str, Any]:
    import httpx
    import kr8s.asyncio
    from kr8s.asyncio.objects import Pod

    api = await kr8s.asyncio.api(kubeconfig=kubeconfig)
    found = await Pod.get(pod, namespace="default", api=api)
    done = await found.exec(["sh", "-c", "echo $COLOUR"])
    failed = await found.exec(["sh", "-c", "exit 3"], check=False)
    async with found.portforward(8012) as port, httpx.AsyncClient() as http:
        status = (await http.get(f"http://127.0.0.1:{port}/_/ready")).status_code
    return {"stdout": done.stdout.decode(), "code": done.returncode, "failed": failed.returncode, "status": status}


if __name__ == "__main__":
    which, *arguments = sys.argv[1:]
    print(json.dumps(official(*arguments) if which == "official" else asyncio.run(kr8s(*arguments))))
