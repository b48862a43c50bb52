"""Admission webhooks over real TLS: who is asked, in which order, and what answers do."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest
from aiohttp import web

from core.apiserver.app import ApiServer
from core.apiserver.authn import User
from core.errors import ApiError, Forbidden, InternalError
from core.serving import AsgiServer
from core.store.memory import MemoryStore
from core.upgrade import Refused, ask
from tests.integration.apiserver.hooking import configuration, hooks, patches

__all__ = ["hooks"]

CM = "/api/v1/namespaces/default/configmaps"
ADMIN = User("admin", ("system:masters",))
UPGRADE = [
    ("Host", "x"), ("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="), ("Sec-WebSocket-Protocol", "v5.channel.k8s.io"),
]  # fmt: skip


class Caller:
    def __init__(self, api):
        self.transport = api.local(ADMIN)

    async def call(self, method, path, body=None, kind="json", **query):
        data = b"" if body is None else json.dumps(body).encode()
        return json.loads(await self.transport.request(method, path, query, data, f"application/{kind}"))

    async def post(self, path, body, **query):
        return await self.call("POST", path, body, **query)


@pytest.fixture
async def admin():
    store = MemoryStore()
    api = ApiServer(store, tokens={"t": ADMIN})
    await api.start()
    server = AsgiServer(api, listener := socket.create_server(("127.0.0.1", 0)), drain=0.2)
    await server.start()
    caller = Caller(api)
    caller.api, caller.address = api, listener.getsockname()
    yield caller
    await server.stop()
    await api.stop()
    await store.close()


async def _configure(admin, kind, name, *found):
    path, body = configuration(kind, name, *found)
    await admin.post(path, body)
    await asyncio.sleep(0)  # a caller in the server's process may be ahead of what follows the store, by a turn
    await asyncio.sleep(0)


def _cm(name="a", **metadata):
    return {"metadata": {"name": name, **metadata}, "data": {"k": "v"}}


async def test_a_validating_webhook_refuses_in_its_own_words(admin, hooks):
    hooks.answers["/no"] = lambda asked: {
        "allowed": False,
        "status": {"message": "not today", "code": 403, "reason": "Forbidden"},
    }
    await _configure(admin, "Validating", "v", hooks.hook("no", operations=["CREATE"]))
    with pytest.raises(Forbidden, match='^admission webhook "no.hooks.dev" denied the request: not today$'):
        await admin.post(CM, _cm())
    (path, asked), *_ = hooks.seen
    assert path == "/no" and asked["operation"] == "CREATE" and asked["oldObject"] is None
    assert asked["object"]["metadata"]["name"] == "a" and asked["object"]["metadata"]["uid"]
    assert (
        asked["resource"] == {"group": "", "version": "v1", "resource": "configmaps"}
        and asked["namespace"] == "default"
    )
    assert asked["userInfo"]["username"] == "admin" and asked["options"]["kind"] == "CreateOptions"
    with pytest.raises(ApiError, match="not found"):
        await admin.call("GET", f"{CM}/a")


async def test_updates_patches_and_deletions_are_shown_with_what_was(admin, hooks):
    await _configure(admin, "Validating", "v", hooks.hook("all"))
    await admin.post(CM, _cm())
    await admin.call("PUT", f"{CM}/a", {**_cm(), "data": {"k": "w"}})
    await admin.call("PATCH", f"{CM}/a", {"data": {"k": "x"}}, "merge-patch+json")
    await admin.call(
        "PATCH",
        f"{CM}/a",
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "y"}},
        "apply-patch+yaml",
        fieldManager="m",
        force="true",
    )
    await admin.call("DELETE", f"{CM}/a", dryRun="All")
    await admin.post(CM, _cm("b"), dryRun="All")
    await admin.call("DELETE", CM)
    seen = [
        (
            asked["operation"],
            (asked["object"] or {}).get("data"),
            (asked["oldObject"] or {}).get("data"),
            asked["dryRun"],
        )
        for _, asked in hooks.seen
    ]
    assert seen == [
        ("CREATE", {"k": "v"}, None, False), ("UPDATE", {"k": "w"}, {"k": "v"}, False), ("UPDATE", {"k": "x"}, {"k": "w"}, False),
        ("UPDATE", {"k": "y"}, {"k": "x"}, False), ("DELETE", None, {"k": "y"}, True), ("CREATE", {"k": "v"}, None, True),
        ("DELETE", None, {"k": "y"}, False),
    ]  # fmt: skip


async def test_mutating_webhooks_change_by_name_and_are_asked_again_where_they_want(admin, hooks):
    def adds(key, value=None):
        return lambda asked: patches({"op": "add", "path": f"/data/{key}", "value": value or str(len(hooks.seen))})

    hooks.answers |= {"/first": adds("first"), "/second": adds("second"), "/third": adds("third")}
    await _configure(admin, "Mutating", "b-later", hooks.hook("third"))
    await _configure(
        admin, "Mutating", "a-earlier", hooks.hook("first", reinvocationPolicy="IfNeeded"), hooks.hook("second")
    )
    made = await admin.post(CM, _cm())
    assert [path for path, _ in hooks.seen] == ["/first", "/second", "/third", "/first"]
    assert made["data"] == {"k": "v", "first": "4", "second": "2", "third": "3"}
    assert hooks.seen[1][1]["object"]["data"]["first"] == "1"
    hooks.seen.clear()
    await admin.call("PUT", f"{CM}/a", _cm())
    assert len(hooks.seen) == 4


async def test_what_a_webhook_changes_is_checked_like_anything(admin, hooks):
    hooks.answers["/bad"] = lambda asked: patches({"op": "add", "path": "/data", "value": 5})
    await _configure(admin, "Mutating", "m", hooks.hook("bad", operations=["CREATE"]))
    with pytest.raises(InternalError):
        await admin.post(CM, _cm())
    hooks.answers["/bad"] = lambda asked: patches({"op": "replace", "path": "/nowhere", "value": 5})
    with pytest.raises(InternalError):
        await admin.post(CM, _cm())
    hooks.answers["/bad"] = lambda asked: patches({"op": "add", "path": "/unknown", "value": 5})
    assert "unknown" not in await admin.post(CM, _cm())


async def test_mutation_cannot_get_around_pod_security(admin, hooks):
    namespace = {"metadata": {"name": "safe", "labels": {"pod-security.kubernetes.io/enforce": "baseline"}}}
    await admin.post("/api/v1/namespaces", namespace)
    hooks.answers["/host"] = lambda asked: patches({"op": "add", "path": "/spec/hostNetwork", "value": True})
    await _configure(admin, "Mutating", "m", hooks.hook("host", resources=["pods"]))
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
    with pytest.raises(Forbidden, match="PodSecurity"):
        await admin.post("/api/v1/namespaces/safe/pods", pod)
    assert hooks.seen[0][1]["object"]["spec"]["restartPolicy"] == "Always"  # shown with its defaults


async def test_validating_webhooks_are_asked_together(admin, hooks):
    hooks.gate = asyncio.Event()
    await _configure(admin, "Validating", "v", *(hooks.hook(f"v{each}", operations=["CREATE"]) for each in range(4)))
    creating = asyncio.create_task(admin.post(CM, _cm()))
    async with asyncio.timeout(20):
        while hooks.together < 4:  # noqa: ASYNC110 - of the server's own count
            await asyncio.sleep(0.01)
    hooks.gate.set()
    await creating
    assert hooks.most == 4


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda asked: web.Response(text="<html>"), 'failed calling webhook "x.hooks.dev": received invalid webhook response'),
        (lambda asked: web.Response(status=503, text="busy"), 'failed calling webhook "x.hooks.dev": failed to call webhook: the server answered 503: busy'),
        (lambda asked: {"uid": "another", "allowed": True}, 'expected response.uid="'),
        (lambda asked: web.Response(status=302, headers={"Location": "https://127.0.0.1:1/"}), "the server answered 302"),
    ],
)  # fmt: skip
async def test_failures_fail_or_are_passed_over(admin, hooks, answer, message):
    hooks.answers["/x"] = answer
    await _configure(admin, "Validating", "v", hooks.hook("x", operations=["CREATE"]))
    with pytest.raises(InternalError) as caught:
        await admin.post(CM, _cm())
    assert message in caught.value.message
    path, _ = configuration("Validating", "v")
    await admin.call(
        "PATCH",
        f"{path}/v",
        {"webhooks": [{"name": "x.hooks.dev", "failurePolicy": "Ignore"}]},
        "strategic-merge-patch+json",
    )
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (await admin.post(CM, _cm()))["metadata"]["name"] == "a"


async def test_who_does_not_answer_in_time_has_failed(admin, hooks):
    hooks.gate = asyncio.Event()
    await _configure(admin, "Validating", "v", hooks.hook("slow", timeoutSeconds=1))
    with pytest.raises(InternalError, match=r"slow\?timeout=1s\": context deadline exceeded"):
        await admin.post(CM, _cm())
    hooks.gate.set()


async def test_certificates_are_checked(admin, hooks, pki):
    import base64

    other = base64.b64encode(pki.authority.read_bytes()).decode()
    url = f"https://127.0.0.1:{hooks.port}/x"
    await _configure(admin, "Validating", "v", hooks.hook("x", clientConfig={"url": url, "caBundle": other}))
    with pytest.raises(InternalError, match="failed to verify certificate"):
        await admin.post(CM, _cm())
    assert hooks.seen == []


async def test_a_service_is_asked_at_its_ready_endpoints_under_its_own_name(admin, hooks):
    spec = {"ports": [{"name": "https", "port": 443, "targetPort": 8443}], "selector": {"a": "b"}}
    await admin.post("/api/v1/namespaces/default/services", {"metadata": {"name": "hook"}, "spec": spec})
    service = {"service": {"name": "hook", "namespace": "default", "path": "/svc"}, "caBundle": hooks.bundle}
    await _configure(admin, "Validating", "v", hooks.hook("svc", clientConfig=service))
    with pytest.raises(InternalError, match='no endpoints available for service "hook"'):
        await admin.post(CM, _cm())
    endpoints = {
        "metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}},
        "addressType": "IPv4", "ports": [{"name": "https", "port": hooks.port}],
        "endpoints": [{"addresses": ["127.0.0.2"], "conditions": {"ready": True}}, {"addresses": ["127.0.0.1"], "conditions": {"ready": True}}, {"addresses": ["127.0.0.3"], "conditions": {"ready": False}}],
    }  # fmt: skip
    await admin.post("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", endpoints)
    # Nobody listens at 127.0.0.2: whichever comes first, the other one is asked.
    for each in range(5):
        await admin.post(CM, _cm(f"c{each}"))
    assert [path for path, _ in hooks.seen] == ["/svc"] * 5
    missing = {"service": {"name": "nobody", "namespace": "default"}}
    await _configure(admin, "Validating", "w", hooks.hook("gone", clientConfig=missing))
    with pytest.raises(InternalError, match='failed to call webhook: service "nobody" not found'):
        await admin.post(CM, _cm())


async def test_selectors_scopes_and_subresources(admin, hooks):
    await admin.post("/api/v1/namespaces", {"metadata": {"name": "team", "labels": {"hooks": "on"}}})
    await _configure(
        admin, "Validating", "v",
        hooks.hook("ns", namespaceSelector={"matchLabels": {"hooks": "on"}}),
        hooks.hook("obj", objectSelector={"matchLabels": {"a": "b"}}),
        hooks.hook("scale", resources=["*/scale"], groups=["apps"]),
        hooks.hook("status", resources=["pods/status", "pods/binding", "pods/eviction"]),
        hooks.hook("nodes", resources=["nodes", "namespaces"], namespaceSelector={"matchLabels": {"hooks": "on"}}),
    )  # fmt: skip

    def seen():
        found = [path for path, _ in hooks.seen]
        hooks.seen.clear()
        return found

    await admin.post(CM, _cm())
    assert seen() == []
    await admin.post(CM, _cm("b", labels={"a": "b"}))
    assert seen() == ["/obj"]
    await admin.post("/api/v1/namespaces/team/configmaps", _cm())
    assert seen() == ["/ns"]
    await admin.post("/api/v1/namespaces", {"metadata": {"name": "other"}})
    assert seen() == []
    await admin.post("/api/v1/namespaces", {"metadata": {"name": "third", "labels": {"hooks": "on"}}})
    await admin.post("/api/v1/nodes", {"metadata": {"name": "n"}})
    assert seen() == ["/nodes", "/nodes"]
    template = {"metadata": {"labels": {"x": "y"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
    deployments = "/apis/apps/v1/namespaces/default/deployments"
    await admin.post(
        deployments,
        {"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"x": "y"}}, "template": template}},
    )
    await admin.call("PATCH", f"{deployments}/d/scale", {"spec": {"replicas": 3}}, "merge-patch+json")
    ((path, asked),) = hooks.seen
    assert path == "/scale" and asked["kind"] == {"group": "autoscaling", "version": "v1", "kind": "Scale"}
    assert (
        asked["object"]["spec"]["replicas"] == 3
        and asked["oldObject"]["spec"]["replicas"] == 1
        and asked["subResource"] == "scale"
    )
    hooks.seen.clear()
    pods = "/api/v1/namespaces/default/pods"
    await admin.post(pods, {"metadata": {"name": "p"}, "spec": template["spec"]})
    assert seen() == []
    await admin.post(f"{pods}/p/binding", {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}})
    await admin.call("PATCH", f"{pods}/p/status", {"status": {"phase": "Running"}}, "merge-patch+json")
    await admin.post(f"{pods}/p/eviction", {"metadata": {"name": "p"}})
    assert seen() == ["/status"] * 3


async def test_connections_are_asked_about(admin, hooks):
    """`CONNECT`, with the options as the object, before the Pod is looked for or a node asked."""
    connections = [
        f"{each}/{sub}" for each in ("pods", "services", "nodes") for sub in ("exec", "attach", "portforward", "proxy")
    ]
    never = {"objectSelector": {"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}}
    await _configure(
        admin, "Validating", "v",
        hooks.hook("see", resources=connections, operations=["CONNECT"]),
        hooks.hook("writes", resources=connections, operations=["CREATE", "UPDATE"]),
        hooks.hook("never", resources=connections, **never),
    )  # fmt: skip
    pod = "/api/v1/namespaces/default/pods/p"
    shown = {
        f"{pod}/exec?command=sh&command=-c&stdin=true&stderr=false&container=c": {
            "kind": "PodExecOptions", "stdin": True, "stdout": True, "container": "c", "command": ["sh", "-c"],
        },
        f"{pod}/attach?tty=true": {"kind": "PodAttachOptions", "stdout": True, "stderr": True, "tty": True},
        f"{pod}/portforward?ports=80,81": {"kind": "PodPortForwardOptions", "ports": [80, 81]},
        f"{pod}/proxy/a%20b/c?d=e": {"kind": "PodProxyOptions", "path": "/a b/c"},
        "/api/v1/namespaces/default/services/p/proxy/": {"kind": "ServiceProxyOptions", "path": "/"},
        "/api/v1/nodes/p/proxy/stats/summary": {"kind": "NodeProxyOptions", "path": "/stats/summary"},
    }  # fmt: skip
    for path in shown:
        with pytest.raises(Refused) as refused:
            await ask(admin.address, "GET", path, [*UPGRADE, ("Authorization", "Bearer t")])
        assert refused.value.status == 404  # there is no such Pod, Service, node
    assert [path for path, _ in hooks.seen] == ["/see"] * len(shown)
    for (_, asked), path, expected in zip(hooks.seen, shown, shown.values(), strict=True):
        assert asked["object"] == {"apiVersion": "v1", **expected}
        assert (asked["operation"], asked["oldObject"], asked["options"]) == ("CONNECT", None, None)
        assert asked["kind"] == asked["requestKind"] == {"group": "", "version": "v1", "kind": expected["kind"]}
        assert asked["name"] == "p" and asked["subResource"] in path
        assert asked["resource"]["resource"] in path and asked.get("namespace", "") == (
            "" if "nodes" in path else "default"
        )


async def test_a_webhook_refuses_and_changes_a_connection(admin, hooks):
    await admin.post(
        "/api/v1/namespaces/default/pods",
        {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "x"}]}},
    )
    hooks.answers["/change"] = lambda asked: patches({"op": "remove", "path": "/command"})
    hooks.answers["/no"] = lambda asked: {"allowed": asked["object"]["kind"] != "PodAttachOptions"}
    await _configure(admin, "Mutating", "m", hooks.hook("change", resources=["pods/exec"]))
    await _configure(admin, "Validating", "v", hooks.hook("no", resources=["pods/*"], operations=["CONNECT"]))

    async def refusal(rest):
        with pytest.raises(Refused) as refused:
            path = f"/api/v1/namespaces/default/pods/p/{rest}"
            await ask(admin.address, "GET", path, [*UPGRADE, ("Authorization", "Bearer t")])
        return refused.value.status, json.loads(refused.value.body)["message"]

    assert await refusal("exec?command=sh") == (400, "you must specify at least 1 command for the container")
    assert hooks.seen[-1][1]["object"] == {"kind": "PodExecOptions", "apiVersion": "v1", "stdout": True, "stderr": True}
    hooks.answers["/change"] = lambda asked: {"allowed": True}
    assert await refusal("exec?command=sh") == (400, "pod p does not have a host assigned")
    code, message = await refusal("attach?tty=true")
    assert code == 400 and message == 'admission webhook "no.hooks.dev" denied the request without explanation'


async def test_configurations_are_never_shown_to_webhooks(admin, hooks):
    hooks.answers["/no"] = lambda asked: {"allowed": False}
    everything = hooks.hook("no", groups=["*"], versions=["*"], resources=["*/*"])
    for kind in ("Mutating", "Validating"):
        await _configure(admin, kind, "all", everything)
    path, body = configuration("Validating", "another", everything)
    await admin.post(path, body)
    for kind in ("Mutating", "Validating"):
        path, _ = configuration(kind, "")
        await admin.call("DELETE", f"{path}/all")
    assert hooks.seen == []


async def test_equivalent_versions_of_a_custom_resource(admin, hooks):
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    versions = [{"name": each, "served": True, "storage": each == "v2", "schema": schema} for each in ("v1", "v2")]
    spec = {
        "group": "x.io",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget"},
        "versions": versions,
    }
    await admin.post(
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", {"metadata": {"name": "widgets.x.io"}, "spec": spec}
    )
    hooks.answers["/old"] = lambda asked: patches(
        {"op": "add", "path": "/seen", "value": asked["object"]["apiVersion"]}
    )
    await _configure(admin, "Mutating", "m", hooks.hook("old", groups=["x.io"], resources=["widgets"], versions=["v1"]))
    made = await admin.post("/apis/x.io/v2/namespaces/default/widgets", {"metadata": {"name": "w"}})
    assert made["apiVersion"] == "x.io/v2" and made["seen"] == "x.io/v1"
    asked = hooks.seen[0][1]
    assert (asked["kind"]["version"], asked["requestKind"]["version"]) == ("v1", "v2")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://x.y/z", "'https' is the only allowed URL scheme"),
        ("https:///z", "host must be specified"),
        ("https://u:p@x.y/z", "user information is not permitted"),
        ("https://x.y/z?a=b", "query parameters are not permitted"),
        ("https://x.y/z#a", "fragments are not permitted"),
    ],
)
async def test_urls_that_are_refused(admin, hooks, url, why):
    path, body = configuration("Validating", "v", hooks.hook("x", clientConfig={"url": url}))
    with pytest.raises(ApiError, match=why):
        await admin.post(path, body)


async def test_what_kubectl_prints(serving, kubectl, hooks, tmp_path):
    hooks.answers["/no"] = lambda asked: {
        "allowed": False,
        "status": {"message": "names must not be short"},
        "warnings": ["think of longer names"],
    }
    hooks.answers["/add"] = lambda asked: patches({"op": "add", "path": "/metadata/labels", "value": {"by": "webhook"}})
    for kind, hook in (("Validating", hooks.hook("no", objectSelector={"matchLabels": {"a": "b"}})), ("Mutating", hooks.hook("add", operations=["CREATE"], objectSelector={"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}))):  # fmt: skip
        _, body = configuration(kind, "hooks", hook)
        made = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": f"{kind}WebhookConfiguration", **body}
        await kubectl("create", "-f", "-", stdin=json.dumps(made))
    cm = {"apiVersion": "v1", "kind": "ConfigMap", **_cm("x", labels={"a": "b"})}
    found = await kubectl("create", "-f", "-", stdin=json.dumps(cm), check=False)
    assert found.code == 1
    assert found.err == (
        "Warning: think of longer names\n"
        'Error from server: error when creating "STDIN": admission webhook "no.hooks.dev" denied the request: names must not be short\n'
    )
    assert (await kubectl("create", "cm", "y")).out == "configmap/y created\n"
    assert (await kubectl("get", "cm", "y", "-o", "jsonpath={.metadata.labels}")).out == '{"by":"webhook"}'
