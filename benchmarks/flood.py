"""One user floods the API; what do the others notice?

Two service accounts of equal rights and a node, over TLS, on the embedded store. `quiet` gets and updates ConfigMaps at 50 requests a second; the
node renews its Lease five times a second; then the same while `flood` keeps 640 connections busy (twenty times the seats that the server
has) with gets, lists of 200 objects and durable creates, and asks again at once whatever it is answered.

`ratio` is flooded_p99_ms / quiet_p99_ms of the quiet user. `offered_to_capacity` is how often the flood would ask in a second if each of its connections were
answered as fast as `quiet` alone is, by how many answers it gets. A heartbeat is late by the time from when it was due until it was answered.

The load comes from processes of their own on the same machine. The flood's runs at the lowest priority (nice 19), as it would take the processors from the others' clients:
what is measured is whom the server serves, not whom the kernel runs. Nothing is pinned, with and without the flood. A p99 is of 400 requests (`--quick`) or
1,000, so that a handful of them decides: whatever else the machine does shows in both figures, and in their ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from urllib.parse import urlsplit

from benchmarks.api import CORE, Server, config_map, server
from benchmarks.harness import arguments, cpu_seconds, main, need, note, percentile

CONNECTIONS = 640
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_FLOOD = """
local count = 0
local head = { ["Content-Type"] = "application/json", ["Authorization"] = "Bearer %s" }
function request()
  count = count + 1
  if count %% 10 == 0 then return wrk.format("GET", "%s/configmaps", head) end
  if count %% 3 == 0 then
    return wrk.format("POST", "%s/configmaps", head, '{"metadata":{"generateName":"f-","labels":{"made":"flood"}}}')
  end
  return wrk.format("GET", "%s/configmaps/c-" .. (count %% 200), head)
end
"""


def account(found: Server, name: str) -> str:
    """A token of a new service account that may do everything."""
    found.request("POST", f"{CORE}/serviceaccounts", {"metadata": {"name": name}})
    binding = {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "default"}],
    }
    found.request("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)
    answer = json.loads(found.request("POST", f"{CORE}/serviceaccounts/{name}/token", {"spec": {}}))
    token: str = answer["status"]["token"]
    return token


async def _paced(
    url: str, token: str, requests: list[tuple[str, str, bytes]], every: float, seconds: float
) -> list[tuple[int, float, float]]:
    """(status, ms, ms late) of requests that are due each `every` seconds, in turn, over one connection."""
    where, context = urlsplit(url), ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(where.hostname, where.port, ssl=context)
    found, began, number = [], time.perf_counter(), 0
    while (due := began + number * every) < began + seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        method, path, body = requests[number % len(requests)]
        sent = time.perf_counter()
        writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/{'merge-patch+' if method == 'PATCH' else ''}json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        over = time.perf_counter()
        found.append((int(head.split()[1]), (over - sent) * 1000, (over - due) * 1000))
        number += 1
    writer.close()
    return found


def paced(
    url: str, token: str, requests: list[tuple[str, str, bytes]], every: float, seconds: float
) -> list[tuple[int, float, float]]:
    return asyncio.run(_paced(url, token, requests, every, seconds))


@contextmanager
def flood(found: Server, token: str, seconds: float) -> Iterator[subprocess.Popen[str]]:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(_FLOOD % (token, CORE, "/api/v1/namespaces/flood", CORE))
        file.flush()
        command = [
            "nice",
            "-n",
            "19",
            need("wrk"),
            "-t",
            "1",
            "-c",
            str(CONNECTIONS),
            "-d",
            f"{round(seconds) + 3}s",
            "-s",
            file.name,
            found.url,
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            time.sleep(2)  # its handshakes are over then
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(30)
            if process.stdout is not None:
                process.stdout.close()


def _metric(found: Server, name: str) -> float:
    text = found.request("GET", "/metrics").decode()
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


def run(options: argparse.Namespace) -> dict[str, float]:
    seconds = 8.0 if options.quick else 20.0
    with server() as found, ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        tokens = {name: account(found, name) for name in ("quiet", "flood")}
        for index in range(200):
            found.request("POST", f"{CORE}/configmaps", config_map(f"c-{index}"))
        found.request("POST", "/api/v1/namespaces", {"metadata": {"name": "flood"}})
        lease = {"metadata": {"name": "n1"}, "spec": {"holderIdentity": "n1", "leaseDurationSeconds": 40}}
        found.request("POST", LEASES, lease)
        update = json.dumps({"metadata": {"name": "c-1"}, "data": {"key": "%s"}}).encode()
        requests = [("GET", f"{CORE}/configmaps/c-2", b""), ("PUT", f"{CORE}/configmaps/c-1", update)]
        beat = [
            ("PATCH", f"{LEASES}/n1", b'{"spec":{"renewTime":null,"leaseDurationSeconds":%d}}' % each)
            for each in (40, 41)
        ]

        paced(found.url, tokens["quiet"], requests, 0.01, 1.0)  # what is made with the first requests

        def both() -> tuple[list[tuple[int, float, float]], list[tuple[int, float, float]]]:
            user = pool.submit(paced, found.url, tokens["quiet"], requests, 0.02, seconds)
            node = pool.submit(paced, found.url, found.node_token, beat, 0.2, seconds)
            return user.result(), node.result()

        both_quiet = both()
        quiet = [each[1] for each in both_quiet[0]]
        note(
            f"alone: p50 {percentile(quiet, 50):.1f}, p99 {percentile(quiet, 99):.1f} ms; heartbeats late {max(each[2] for each in both_quiet[1]):.1f} ms"
        )
        used = cpu_seconds([found.process.pid])
        with flood(found, tokens["flood"], seconds) as process:
            user, node = both()
            said = process.communicate(timeout=60)[0]
        used = cpu_seconds([found.process.pid]) - used
        rate = float(said.partition("Requests/sec:")[2].split()[0])
        loud = [each[1] for each in user]
        answered = _metric(found, "apiserver_flowcontrol_dispatched_requests_total")
        rejected = _metric(found, "apiserver_flowcontrol_rejected_requests_total")
        failed = [each for each in (*user, *node) if each[0] >= 300]
        note(
            f"flooded: p50 {percentile(loud, 50):.1f}, p99 {percentile(loud, 99):.1f} ms, {len(failed)} of others' requests failed {Counter(each[0] for each in failed)}; {said.splitlines()[-2:]}"
        )
    quiet_p99, flooded_p99 = percentile(quiet, 99), percentile(loud, 99)
    return {
        "quiet_p99_ms": quiet_p99,
        "flooded_p99_ms": flooded_p99,
        "ratio": flooded_p99 / quiet_p99,
        "flood_answered_per_s": rate,
        "offered_to_capacity": CONNECTIONS / (percentile(quiet, 50) / 1000) / rate,
        "quiet_p50_ms": percentile(quiet, 50),
        "flooded_p50_ms": percentile(loud, 50),
        "heartbeat_late_max_ms": max(each[2] for each in node),
        "rejected": rejected,
        "admitted": answered,
        "others_failed": len(failed),
        "server_cpu_s": used,
    }


if __name__ == "__main__":
    main("flood", arguments(__doc__ or ""), run)
