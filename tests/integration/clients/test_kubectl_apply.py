"""kubectl's server-side apply: conflicts as it prints them, force, and the move from the client's side."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Kubectl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def kubectl(kubeconfig: str, tmp_path: Path, needs: Callable[..., None]) -> Kubectl:
    binary = shutil.which("kubectl")
    needs(binary, "kubectl", "apt-get install kubernetes-client")

    def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(binary), *arguments], input=stdin, capture_output=True, text=True, timeout=30, check=False,
            env={"KUBECONFIG": kubeconfig, "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        )  # fmt: skip

    return run


def manifest(name: str, **data: str) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})


def managers(kubectl: Kubectl, name: str) -> dict[str, Any]:
    found = json.loads(kubectl("get", "cm", name, "-o", "json", "--show-managed-fields").stdout)
    return {
        f"{each['manager']} {each['operation']}": each["fieldsV1"]
        for each in found["metadata"].get("managedFields", ())
    }


@pytest.mark.kubectl
def test_conflicts_and_force(kubectl: Kubectl, name: str) -> None:
    done = kubectl("apply", "--server-side", "-f", "-", stdin=manifest(name, a="1"))
    assert done.stdout == f"configmap/{name} serverside-applied\n", done.stderr
    done = kubectl("apply", "--server-side", "--field-manager=other", "-f", "-", stdin=manifest(name, a="2"))
    assert done.returncode == 1
    assert 'error: Apply failed with 1 conflict: conflict with "kubectl": .data.a' in done.stderr
    assert "Please review the fields above--they currently have other managers" in done.stderr
    done = kubectl(
        "apply", "--server-side", "--field-manager=other", "--force-conflicts", "-f", "-", stdin=manifest(name, a="2")
    )
    assert done.returncode == 0, done.stderr
    assert managers(kubectl, name) == {"other Apply": {"f:data": {"f:a": {}}}}
    assert "managedFields" not in kubectl("get", "cm", name, "-o", "yaml").stdout
    done = kubectl("diff", "--server-side", "--field-manager=other", "-f", "-", stdin=manifest(name, a="3"))
    assert done.returncode == 1 and '+  a: "3"' in done.stdout, done.stderr


@pytest.mark.kubectl
def test_from_the_clients_side_to_the_servers(kubectl: Kubectl, name: str) -> None:
    assert kubectl("apply", "-f", "-", stdin=manifest(name, a="1", b="1")).stdout == f"configmap/{name} created\n"
    assert set(managers(kubectl, name)) == {"kubectl-client-side-apply Update"}
    done = kubectl("apply", "--server-side", "-f", "-", stdin=manifest(name, a="2"))
    assert done.stdout == f"configmap/{name} serverside-applied\n", done.stderr
    # What had been applied on the client's side and isn't any more goes with the next apply, as its manager is kubectl now.
    assert not any(each.startswith("kubectl-client-side-apply") for each in managers(kubectl, name))
    kubectl("apply", "--server-side", "-f", "-", stdin=manifest(name, a="2"))
    assert json.loads(kubectl("get", "cm", name, "-o", "json").stdout)["data"] == {"a": "2"}
    done = kubectl("apply", "-f", "-", stdin=manifest(name, a="4"))
    assert done.stdout == f"configmap/{name} configured\n", done.stderr
    assert json.loads(kubectl("get", "cm", name, "-o", "json").stdout)["data"] == {"a": "4"}


@pytest.mark.kubectl
def test_a_scaled_workload_is_not_scaled_back_unasked(kubectl: Kubectl, name: str) -> None:
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "nginx:1", "ports": [{"containerPort": 80}]}]},
    }
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template}
    workload = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": name}, "spec": spec}
    done = kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(workload))
    assert done.stdout == f"replicaset.apps/{name} serverside-applied\n", done.stderr
    kubectl("wait", f"rs/{name}", "--for=jsonpath={.status.readyReplicas}=1", "--timeout=20s")
    assert kubectl("scale", f"rs/{name}", "--replicas=2").returncode == 0
    done = kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(workload))
    assert 'conflict with "kubectl" with subresource "scale" using apps/v1: .spec.replicas' in done.stderr
    del spec["replicas"]
    assert kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(workload)).returncode == 0
    found = json.loads(kubectl("get", "rs", name, "-o", "json", "--show-managed-fields").stdout)
    assert found["spec"]["replicas"] == 2
    # The controller in the server's process writes a managed object, so it is among its managers.
    assert {(each["manager"], each["operation"], each.get("subresource", "")) for each in found["metadata"]["managedFields"]} == {
        ("kubectl", "Apply", ""), ("kubectl", "Update", "scale"), ("kube-controller-manager", "Update", "status"),
    }  # fmt: skip
    assert kubectl("delete", f"rs/{name}").returncode == 0
