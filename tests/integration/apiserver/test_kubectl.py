"""The real kubectl against the real server, over TLS."""

from __future__ import annotations

import asyncio
import json
import os

import pytest

pytestmark = pytest.mark.kubectl

POD = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers: [{name: c, image: "nginx:1", ports: [{containerPort: 80}]}]
"""
SET = """
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: "nginx:1"}]}
"""
NODE = """
apiVersion: v1
kind: Node
metadata: {name: n1}
status:
  capacity: {cpu: "2", memory: 1Gi}
  conditions: [{type: Ready, status: "True", reason: KubeletReady}]
  addresses: [{type: InternalIP, address: 127.64.0.1}]
  nodeInfo: {kubeletVersion: v1.32.4, osImage: Linux, kernelVersion: "6", containerRuntimeVersion: "process://1", operatingSystem: linux}
"""
CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.shop.example.com}
spec:
  group: shop.example.com
  scope: Namespaced
  names: {plural: widgets, kind: Widget, shortNames: [wd]}
  versions:
  - name: v1
    served: true
    storage: true
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
    schema:
      openAPIV3Schema:
        type: object
        properties: {spec: {type: object, properties: {size: {type: integer, description: How large it is.}}}}
"""


async def test_get_shows_tables(kubectl):
    await kubectl("create", "-f", "-", stdin=f"{POD}---{SET}---{NODE}")
    await kubectl("create", "service", "clusterip", "web", "--tcp=80:8080")
    shown = (await kubectl("get", "nodes,pods,rs,svc", "-A", "-o", "wide")).out
    assert "node/n1" in shown and "127.64.0.1" in shown and "process://1" in shown
    assert "pod/web" in shown and "0/1" in shown and "Pending" in shown
    assert "replicaset.apps/web" in shown and "nginx:1" in shown
    assert "service/web" in shown and "80/TCP" in shown and "127.32." in shown
    assert (await kubectl("get", "po", "web", "-o", "name", "-l", "app=web", check=False)).code == 1, (
        "a name and a selector don't go together"
    )
    assert (await kubectl("get", "po", "-l", "app=web", "-o", "name")).out == "pod/web\n"
    assert "No resources found" in (await kubectl("get", "po", "--field-selector", "spec.nodeName=n9")).err
    sorted_ = await kubectl("get", "ns", "--sort-by=.metadata.name")
    assert sorted_.out.index("default") < sorted_.out.index("kube-system")
    described = (await kubectl("describe", "pod,node,rs,svc")).out
    assert (
        "QoS Class" in described
        and "KubeletReady" in described
        and "2 desired" in described
        and "TargetPort" in described
    )


async def test_apply_edit_and_the_patches(kubectl, tmp_path):
    assert "created" in (await kubectl("apply", "-f", "-", stdin=SET)).out
    assert "unchanged" in (await kubectl("apply", "-f", "-", stdin=SET)).out
    assert "configured" in (await kubectl("apply", "-f", "-", stdin=SET.replace("replicas: 2", "replicas: 3"))).out
    editor = tmp_path / "editor.sh"
    editor.write_text("#!/bin/sh\nsed -i 's/replicas: 3/replicas: 4/' \"$1\"\n")
    os.chmod(editor, 0o700)
    assert "edited" in (await kubectl("edit", "rs", "web", EDITOR=str(editor))).out
    assert (await kubectl("get", "rs", "web", "-o", "jsonpath={.spec.replicas} {.metadata.generation}")).out == "4 3"
    assert "scaled" in (await kubectl("scale", "rs", "web", "--replicas=0")).out
    await kubectl("label", "rs", "web", "tier=front")
    await kubectl("annotate", "rs", "web", "note=hello")
    await kubectl("set", "image", "rs/web", "c=nginx:2")
    found = json.loads((await kubectl("get", "rs", "web", "-o", "json")).out)
    assert found["spec"]["replicas"] == 0 and found["metadata"]["labels"]["tier"] == "front"
    assert found["spec"]["template"]["spec"]["containers"][0]["image"] == "nginx:2"
    assert found["metadata"]["annotations"]["note"] == "hello"
    await kubectl("patch", "rs", "web", "--type=json", "-p", '[{"op":"replace","path":"/spec/replicas","value":1}]')
    await kubectl("replace", "-f", "-", stdin=SET)
    assert "+++" in (await kubectl("diff", "-f", "-", stdin=SET.replace("replicas: 2", "replicas: 5"), check=False)).out
    refused = await kubectl("apply", "-f", "-", stdin=SET.replace("replicas: 2", "replicaz: 2"), check=False)
    assert 'unknown field "spec.replicaz"' in refused.err


async def test_delete_waits_until_it_is_gone(kubectl):
    await kubectl("create", "-f", "-", stdin=f"{POD}---{SET}")
    assert "deleted" in (await kubectl("delete", "pod", "web")).out
    assert "deleted" in (await kubectl("delete", "rs", "--all")).out
    missing = await kubectl("get", "pod", "web", check=False)
    assert missing.err == 'Error from server (NotFound): pods "web" not found\n'
    assert "created (server dry run)" in (await kubectl("create", "-f", "-", "--dry-run=server", stdin=POD)).out
    assert (await kubectl("get", "po", "-o", "name")).out == ""


async def test_watching(kubectl, kubectl_environment):
    process = await asyncio.create_subprocess_exec(
        "kubectl", "get", "cm", "-w", env=kubectl_environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )  # fmt: skip
    try:
        async with asyncio.timeout(20):
            await kubectl("create", "cm", "first", "--from-literal=a=b")
            assert process.stdout is not None
            lines = [(await process.stdout.readline()).decode() for _ in range(2)]
            await kubectl("create", "cm", "second", "--from-literal=a=b", "--from-literal=c=d")
            lines.append((await process.stdout.readline()).decode())
    finally:
        process.terminate()
        await process.communicate()
    assert [line.split()[:2] for line in lines] == [["NAME", "DATA"], ["first", "1"], ["second", "2"]]


async def test_waiting(kubectl, serving):
    await kubectl("create", "-f", "-", stdin=POD)
    waiting = asyncio.create_task(kubectl("wait", "--for=jsonpath={.status.phase}=Running", "pod/web", "--timeout=20s"))
    await kubectl("patch", "pod", "web", "--subresource=status", "--type=merge", "-p", '{"status":{"phase":"Running"}}')
    assert "condition met" in (await waiting).out


async def test_creations_that_send_protobuf(kubectl):
    for arguments in (
        ("ns", "team"),
        ("secret", "generic", "s", "--from-literal=k=v"),
        ("cm", "c", "--from-literal=k=v"),
        ("sa", "robot"),
    ):
        assert "created" in (await kubectl("create", *arguments)).out
    assert (await kubectl("get", "secret", "s", "-o", "jsonpath={.data.k} {.type}")).out == "dg== Opaque"
    assert (await kubectl("auth", "can-i", "create", "pods")).out == "yes\n"
    assert "admin" in (await kubectl("auth", "whoami")).out
    again = await kubectl("create", "ns", "team", check=False)
    assert again.err == 'Error from server (AlreadyExists): namespaces "team" already exists\n'


async def test_discovery_and_explain(kubectl):
    shown = (await kubectl("api-resources")).out
    for short, kind in (
        ("po", "Pod"),
        ("rs", "ReplicaSet"),
        ("crd,crds", "CustomResourceDefinition"),
        ("svc", "Service"),
    ):
        assert any(short in line.split() and kind in line.split() for line in shown.splitlines()), (short, kind)
    assert "apps/v1" in (await kubectl("api-versions")).out
    assert "<string>" in (await kubectl("explain", "pods.spec.nodeName")).out
    assert "<[]Container>" in (await kubectl("explain", "rs.spec.template.spec.containers")).out
    assert "v1.35" in (await kubectl("version")).out
    assert (await kubectl("get", "--raw", "/readyz?verbose")).out.endswith("readyz check passed\n")


async def test_custom_resources(kubectl):
    assert "created" in (await kubectl("apply", "-f", "-", stdin=CRD)).out
    await kubectl("wait", "--for=condition=Established", "crd/widgets.shop.example.com", "--timeout=20s")
    item = "apiVersion: shop.example.com/v1\nkind: Widget\nmetadata: {name: w}\nspec: {size: 3}\n"
    assert "created" in (await kubectl("apply", "-f", "-", stdin=item)).out
    assert "configured" in (await kubectl("apply", "-f", "-", stdin=item.replace("3", "4"))).out
    lines = (await kubectl("get", "wd")).out.splitlines()
    assert (lines[0].split(), lines[1].split()[:2]) == (["NAME", "SIZE"], ["w", "4"])
    assert "How large it is." in (await kubectl("explain", "widget.spec.size")).out
    assert "deleted" in (await kubectl("delete", "crd", "widgets.shop.example.com", "--timeout=20s")).out
    assert "could not find the requested resource" in (await kubectl("get", "widgets", check=False)).err
