"""kubectl, unmodified, on the running platform with the kubeconfig that it wrote."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.kubectl

CODE = """
    import os

    def handle(event, context):
        print("called", event.query.get("n", "-"), flush=True)
        if event.query.get("die"):
            os._exit(3)
        return os.environ.get("COLOUR", "none")
"""


@pytest.fixture(scope="module")
def shown(platform: Any) -> Any:
    """The platform with a function of two instances."""
    platform.deploy("shown", CODE, "--min", "2")
    return platform


@pytest.fixture
def kubectl(shown: Any, needs: Any) -> Callable[..., str]:
    needs(shutil.which("kubectl"), "kubectl", "install it from https://kubernetes.io/docs/tasks/tools/")
    environment = {
        **shown.environment, "KUBECONFIG": shown.faas("kubeconfig", "--path").out.strip(), "HOME": str(shown.sources),
    }  # fmt: skip

    def run(*arguments: str, stdin: str | None = None, editor: str = "", code: int = 0) -> str:
        done = subprocess.run(
            ["kubectl", *arguments], env={**environment, **({"EDITOR": editor} if editor else {})}, input=stdin,
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == code, f"kubectl {' '.join(arguments)}: {done.stderr}{done.stdout}"
        return done.stdout + (done.stderr if code else "")

    run.environment = environment  # type: ignore[attr-defined]
    return run


def pod_of(kubectl: Any) -> str:
    return str(kubectl("get", "pods", "-l", "faaslite.dev/function=shown", "-o", "name").split()[0])


class TestReading:
    def test_get_everything_wide(self, kubectl: Any, wait_until: Callable[..., Any]) -> None:
        wait_until("two Pods", lambda: kubectl("get", "pods").count("1/1") >= 2)
        found = kubectl("get", "nodes,pods,rs,svc,functions", "-A", "-o", "wide")
        for part in ("node/node-1", "Ready", "pod/shown-00001-", "1/1", "Running", "replicaset.apps/shown-00001", "service/shown",
                     "function.faaslite.dev/shown", "process://", "127."):  # fmt: skip
            assert part in found, found
        assert kubectl("get", "fn", "shown", "-o", "jsonpath={.status.latestReadyRevision}") == "shown-00001"

    @pytest.mark.parametrize(
        "what", ["node/node-1", "rs/shown-00001", "svc/shown", "function/shown", "namespace/default"]
    )
    def test_describe(self, kubectl: Any, what: str) -> None:
        assert what.partition("/")[2] in kubectl("describe", what)

    def test_describe_a_pod(self, kubectl: Any, wait_until: Callable[..., Any]) -> None:
        pod = pod_of(kubectl)
        wait_until("its events", lambda: "Started container" in kubectl("describe", pod))
        found = kubectl("describe", pod)
        for part in ("Controlled By:  ReplicaSet/shown-00001", "Status:           Running", "faaslite/python"):
            assert part in found, found

    def test_logs(self, kubectl: Any, shown: Any) -> None:
        for number in range(20):
            shown.call(f"/function/shown?n={number}")
        pods = kubectl("get", "pods", "-l", "faaslite.dev/function=shown", "-o", "name").split()
        lines = {each: [line for line in kubectl("logs", each).splitlines() if "called" in line] for each in pods}
        assert sum(len(each) for each in lines.values()) >= 20
        busy = max(lines, key=lambda each: len(lines[each]))
        assert len(kubectl("logs", busy, "--tail", "1").splitlines()) == 1
        assert "T" in kubectl("logs", busy, "--tail", "1", "--timestamps").split()[0]

    def test_logs_follow(self, kubectl: Any, shown: Any) -> None:
        command = ["kubectl", "logs", "-f", "--tail=0", "-l", "faaslite.dev/function=shown"]
        follower = subprocess.Popen(command, env=kubectl.environment, stdout=subprocess.PIPE, text=True)
        try:
            found = threading.Event()

            def read() -> None:
                for line in follower.stdout or ():
                    if "called followed" in line:
                        found.set()

            reader = threading.Thread(target=read)
            reader.start()
            for _ in range(100):
                shown.call("/function/shown?n=followed")
                if found.wait(0.2):
                    break
            assert found.is_set()
        finally:
            follower.terminate()
            follower.wait(20)
            reader.join(20)
            assert follower.stdout is not None
            follower.stdout.close()

    def test_logs_of_the_run_before(self, kubectl: Any, shown: Any, wait_until: Callable[..., Any]) -> None:
        shown.deploy("dying", CODE, "--min", "1", "--max", "1")
        assert shown.call("/function/dying?n=last&die=1").status == 502

        def restarted() -> bool:
            items = json.loads(kubectl("get", "pods", "-l", "faaslite.dev/function=dying", "-o", "json"))["items"]
            return any(each["status"]["containerStatuses"][0]["restartCount"] for each in items)

        wait_until("the restart", restarted)
        pod = kubectl("get", "pods", "-l", "faaslite.dev/function=dying", "-o", "name").split()[0]
        assert "called last" in kubectl("logs", pod, "--previous")
        assert "exit code" in kubectl("describe", pod).lower()
        shown.faas("delete", "dying")

    def test_watch(self, kubectl: Any, shown: Any) -> None:
        command = ["kubectl", "get", "functions", "-w", "-o", "name"]
        watcher = subprocess.Popen(command, env=kubectl.environment, stdout=subprocess.PIPE, text=True)
        try:
            found = threading.Event()

            def read() -> None:
                for line in watcher.stdout or ():
                    if "watched" in line:
                        found.set()

            reader = threading.Thread(target=read)
            reader.start()
            shown.deploy("watched", CODE)
            assert found.wait(20)
        finally:
            watcher.terminate()
            watcher.wait(20)
            reader.join(20)
            assert watcher.stdout is not None
            watcher.stdout.close()
        shown.faas("delete", "watched")


class TestWriting:
    def test_a_function_by_manifest(
        self, kubectl: Any, shown: Any, wait_until: Callable[..., Any], tmp_path: Path
    ) -> None:
        """apply, apply again, edit, scale, delete: what a team's repository and its people do."""
        spec = json.loads(kubectl("get", "function", "shown", "-o", "json"))["spec"]
        manifest = {
            "apiVersion": "faaslite.dev/v1",
            "kind": "Function",
            "metadata": {"name": "applied"},
            "spec": {
                "handler": spec["handler"], "package": spec["package"], "env": [{"name": "COLOUR", "value": "red"}],
                "scale": {"min": 1},
            },
        }  # fmt: skip
        file = tmp_path / "function.yaml"
        file.write_text(yaml.safe_dump(manifest))
        assert "created" in kubectl("apply", "-f", str(file))
        kubectl("wait", "--for=condition=Ready", "function/applied", "--timeout=30s")
        assert shown.call("/function/applied").body == b"red"
        assert "unchanged" in kubectl("apply", "-f", str(file))

        manifest["spec"]["env"][0]["value"] = "green"  # type: ignore[index]
        file.write_text(yaml.safe_dump(manifest))
        assert "configured" in kubectl("apply", "-f", str(file))
        wait_until("green", lambda: shown.call("/function/applied").body == b"green")

        editor = tmp_path / "editor"
        editor.write_text('#!/bin/sh\nsed -i s/green/blue/ "$1"\n')
        os.chmod(editor, 0o755)
        assert "edited" in kubectl("edit", "function", "applied", editor=str(editor))
        wait_until("blue", lambda: shown.call("/function/applied").body == b"blue")

        assert "deleted" in kubectl("delete", "-f", str(file))
        wait_until("its end", lambda: shown.call("/function/applied").status == 404)
        wait_until("the end of its Pods", lambda: not shown.pods("applied"))
        assert "applied" not in kubectl("get", "rs,svc,functions")

    def test_a_manifest_that_is_wrong(self, kubectl: Any, tmp_path: Path) -> None:
        file = tmp_path / "function.yaml"
        file.write_text(
            "apiVersion: faaslite.dev/v1\nkind: Function\nmetadata: {name: Wrong_Name}\nspec: {concurrency: many}\n"
        )
        said = kubectl("apply", "-f", str(file), code=1)
        assert "metadata.name" in said or "spec.concurrency" in said or "concurrency" in said, said

    def test_a_deleted_pod_is_made_again(self, kubectl: Any, shown: Any, wait_until: Callable[..., Any]) -> None:
        pod = pod_of(kubectl)
        assert "deleted" in kubectl("delete", pod)
        wait_until(
            "its successor", lambda: kubectl("get", "pods", "-l", "faaslite.dev/function=shown").count("1/1") == 2
        )
        assert pod not in kubectl("get", "pods", "-o", "name").split()
        assert shown.call("/function/shown").status == 200


class TestVolumes:
    def test_what_a_pod_writes_is_there_for_the_next_until_the_claim_goes(self, kubectl: Any, shown: Any) -> None:
        claim = {
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        }  # fmt: skip

        def run(name: str, command: str) -> None:
            container = {
                "name": "c", "image": "faaslite/python", "command": ["sh", "-c", command], "env": [{"name": "DATA", "value": "/data"}],
                "volumeMounts": [{"name": "d", "mountPath": "/data"}],
            }  # fmt: skip
            volumes = [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]
            pod = {
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
                "spec": {"restartPolicy": "Never", "tolerations": [{"operator": "Exists"}], "containers": [container], "volumes": volumes},
            }  # fmt: skip
            kubectl("create", "-f", "-", stdin=json.dumps(pod))
            kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", f"pod/{name}", "--timeout=50s")

        assert "standard (default)" in kubectl("get", "sc")
        kubectl("create", "-f", "-", stdin=json.dumps(claim))
        run("writes", 'echo kept > "$DATA/x"')
        assert "Bound" in kubectl("get", "pvc", "data")
        kubectl("delete", "pod", "writes")
        run("reads", 'cat "$DATA/x"')
        assert kubectl("logs", "reads") == "kept\n"
        folders = list(shown.home.glob("nodes/*/volumes/pvc-*"))
        assert len(folders) == 1 and (folders[0] / "x").read_text() == "kept\n"
        kubectl("delete", "pod", "reads")
        kubectl("delete", "pvc", "data")
        kubectl("wait", "--for=delete", "pv", "--all", "--timeout=50s")
        assert not folders[0].exists()
