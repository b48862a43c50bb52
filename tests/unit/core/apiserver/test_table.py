import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.api.kinds import BUILT_IN, EVENT, NODE, POD, SECRET, SERVICE, Kind
from core.apiserver.cells import human_duration, selector_text
from core.apiserver.columns import COLUMNS
from core.apiserver.jsonpath import JsonPath
from core.apiserver.table import partial_metadata, to_table
from core.clock import timestamp

NOW = 1_700_000_000.0
CUSTOM = Kind("faaslite.dev", "v1", "Function", "functions")


def cells(kind: Kind, document: dict[str, Any]) -> dict[str, Any]:
    table = to_table(kind, [document], now=NOW, include="None")
    return dict(zip([each["name"] for each in table["columnDefinitions"]], table["rows"][0]["cells"], strict=True))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"), (-1, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (125, "2m5s"), (599, "9m59s"), (600, "10m"), (10799, "179m"),
        (10800, "3h"), (11000, "3h3m"), (28800, "8h"), (172799, "47h"), (172800, "2d"), (180000, "2d2h"), (691200, "8d"), (63071999, "729d"),
        (63072000, "2y"), (66000000, "2y33d"), (252288000, "8y"), (400000000, "12y"),
    ],
)  # fmt: skip
def test_durations_are_those_of_kubectl(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


# Pods


def status(state: dict[str, Any], name: str = "c", **fields: Any) -> dict[str, Any]:
    return {"name": name, "state": state, **fields}


RUNNING: dict[str, Any] = {"running": {}}


def ended(code: int, reason: str = "", **fields: Any) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, **({"reason": reason} if reason else {}), **fields}}


def pod(
    phase: str = "Running", *containers: dict[str, Any], init: tuple[dict[str, Any], ...] = (), **more: Any
) -> dict[str, Any]:
    meta = {"name": "p", "creationTimestamp": timestamp(NOW - 90), **more.pop("metadata", {})}
    sidecars = more.pop("sidecars", ())
    initial = [
        {"name": each["name"], **({"restartPolicy": "Always"} if each["name"] in sidecars else {})} for each in init
    ]
    return {
        "metadata": meta,
        "spec": {
            "containers": [{"name": each["name"]} for each in containers] or [{"name": "c"}],
            "initContainers": initial,
        },
        "status": {"phase": phase, "containerStatuses": list(containers), "initContainerStatuses": list(init), **more},
    }


READY = {"conditions": [{"type": "Ready", "status": "True"}]}
DELETED = {"metadata": {"deletionTimestamp": timestamp(NOW)}}


@pytest.mark.parametrize(
    ("document", "ready", "shown"),
    [
        (pod("Pending"), "0/1", "Pending"),
        (pod("Running", status(RUNNING, ready=True)), "1/1", "Running"),
        (pod("Running", status(RUNNING, ready=True), status(RUNNING, "d", ready=False)), "1/2", "Running"),
        (pod("Pending", status({"waiting": {"reason": "ContainerCreating"}})), "0/1", "ContainerCreating"),
        (pod("Running", status({"waiting": {"reason": "CrashLoopBackOff"}})), "0/1", "CrashLoopBackOff"),
        (pod("Succeeded", status(ended(0, "Completed"))), "0/1", "Completed"),
        (pod("Failed", status(ended(137, "OOMKilled"))), "0/1", "OOMKilled"),
        (pod("Failed", status(ended(3))), "0/1", "ExitCode:3"),
        (pod("Failed", status(ended(0, signal=9))), "0/1", "Signal:9"),
        (pod("Failed", reason="Evicted"), "0/1", "Evicted"),
        (pod("Running", status(ended(0, "Completed")), status(RUNNING, "d", ready=True), **READY), "1/2", "Running"),
        (pod("Running", status(ended(0, "Completed")), status(RUNNING, "d", ready=True)), "1/2", "NotReady"),
        (pod("Running", status(RUNNING, ready=True), **DELETED), "1/1", "Terminating"),
        (pod("Succeeded", status(ended(0, "Completed")), **DELETED), "0/1", "Completed"),
        (pod("Running", reason="NodeLost", **DELETED), "0/1", "Unknown"),
        (pod("Pending", conditions=[{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]), "0/1", "SchedulingGated"),
        (pod("Pending", init=(status({}, "i"), status({}, "j"))), "0/1", "Init:0/2"),
        (pod("Pending", init=(status(ended(0), "i"), status(RUNNING, "j"))), "0/1", "Init:1/2"),
        (pod("Pending", init=(status({"waiting": {"reason": "PodInitializing"}}, "i"),)), "0/1", "Init:0/1"),
        (pod("Pending", init=(status({"waiting": {"reason": "ImagePullBackOff"}}, "i"),)), "0/1", "Init:ImagePullBackOff"),
        (pod("Pending", init=(status(ended(1, "Error"), "i"),)), "0/1", "Init:Error"),
        (pod("Pending", init=(status(ended(2), "i"),)), "0/1", "Init:ExitCode:2"),
        (pod("Pending", init=(status(ended(2, signal=6), "i"),)), "0/1", "Init:Signal:6"),
        (pod("Running", status(RUNNING, ready=True), init=(status(RUNNING, "s", started=True, ready=True),), sidecars=("s",)), "2/2", "Running"),
        (pod("Pending", init=(status(RUNNING, "s", started=False),), sidecars=("s",)), "0/2", "Init:0/1"),
    ],
)  # fmt: skip
def test_pods_say_in_a_word_how_they_fare(document: dict[str, Any], ready: str, shown: str) -> None:
    found = cells(POD, document)
    assert (found["Ready"], found["Status"], found["Age"]) == (ready, shown, "90s")


def test_restarts_say_when_the_last_was() -> None:
    last = {"terminated": {"finishedAt": timestamp(NOW - 330)}}
    earlier = {"terminated": {"finishedAt": timestamp(NOW - 900)}}
    document = pod(
        "Running", status(RUNNING, ready=True, restartCount=2, lastState=earlier), status(RUNNING, "d", restartCount=1, lastState=last),
        init=(status(ended(0), "i", restartCount=7, lastState=last),),
    )  # fmt: skip
    assert cells(POD, document)["Restarts"] == "3 (5m30s ago)"
    assert cells(POD, pod("Running", status(RUNNING, restartCount=4)))["Restarts"] == "4"
    waiting = pod("Pending", init=(status({"waiting": {"reason": "CrashLoopBackOff"}}, "i", restartCount=7),))
    assert cells(POD, waiting)["Restarts"] == "7"


def test_wide_columns_of_pods() -> None:
    document = pod("Running", podIP="10.0.0.1", conditions=[{"type": "x", "status": "True"}])
    document["spec"] |= {"nodeName": "n1", "readinessGates": [{"conditionType": "x"}, {"conditionType": "y"}]}
    found = cells(POD, document)
    assert [found[name] for name in ("IP", "Node", "Nominated Node", "Readiness Gates")] == [
        "10.0.0.1",
        "n1",
        "<none>",
        "1/2",
    ]
    wide = [each["name"] for each in to_table(POD, [], now=NOW)["columnDefinitions"] if each["priority"] == 1]
    assert wide == ["IP", "Node", "Nominated Node", "Readiness Gates"]


# Other kinds


@pytest.mark.parametrize(
    ("group", "kind", "document", "expected"),
    [
        ("", "Node", {"metadata": {"labels": {"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": ""}},
                      "spec": {"unschedulable": True}, "status": {"conditions": [{"type": "Ready", "status": "True"}],
                      "addresses": [{"type": "InternalIP", "address": "1.2.3.4"}], "nodeInfo": {"kubeletVersion": "v1"}}},
         {"Status": "Ready,SchedulingDisabled", "Roles": "control-plane,worker", "Version": "v1", "Internal-IP": "1.2.3.4",
          "External-IP": "<none>", "OS-Image": "<unknown>"}),
        ("", "Node", {"metadata": {}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}, {"Status": "NotReady", "Roles": "<none>"}),
        ("", "Node", {"metadata": {}}, {"Status": "Unknown"}),
        ("", "Service", {"spec": {"type": "NodePort", "clusterIP": "1.1.1.1", "ports": [{"port": 80, "nodePort": 30080}, {"port": 53, "protocol": "UDP"}],
                                  "selector": {"b": "2", "a": "1"}}},
         {"Type": "NodePort", "Cluster-IP": "1.1.1.1", "External-IP": "<none>", "Port(s)": "80:30080/TCP,53/UDP", "Selector": "a=1,b=2"}),
        ("", "Service", {"spec": {"type": "LoadBalancer"}}, {"External-IP": "<pending>", "Port(s)": "<none>"}),
        ("", "Service", {"spec": {"type": "ExternalName", "externalName": "x.org"}}, {"External-IP": "x.org", "Cluster-IP": "<none>"}),
        ("", "Secret", {"type": "Opaque", "data": {"a": "", "b": ""}}, {"Type": "Opaque", "Data": 2}),
        ("", "ConfigMap", {"data": {"a": ""}, "binaryData": {"b": ""}}, {"Data": 2}),
        ("", "Endpoints", {"subsets": [{"addresses": [{"ip": f"10.0.0.{n}"} for n in range(5)], "ports": [{"port": 80}]}]},
         {"Endpoints": "10.0.0.0:80,10.0.0.1:80,10.0.0.2:80 + 2 more..."}),
        ("discovery.k8s.io", "EndpointSlice", {"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}]},
         {"AddressType": "IPv4", "Ports": "<unset>", "Endpoints": "10.0.0.1"}),
        ("apps", "ReplicaSet", {"spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {"containers":
            [{"name": "c", "image": "x"}, {"name": "d", "image": "y"}]}}}, "status": {"replicas": 2}},
         {"Desired": 3, "Current": 2, "Ready": 0, "Containers": "c,d", "Images": "x,y", "Selector": "a=b"}),
        ("apps", "Deployment", {"spec": {"replicas": 3}, "status": {"readyReplicas": 1, "updatedReplicas": 2}}, {"Ready": "1/3", "Up-to-date": 2}),
        ("batch", "Job", {"spec": {"completions": 2, "parallelism": 1}, "status": {"succeeded": 1, "startTime": timestamp(NOW - 60)}},
         {"Status": "Running", "Completions": "1/2", "Duration": "60s"}),
        ("batch", "CronJob", {"spec": {"schedule": "@daily"}, "status": {}},
         {"Schedule": "@daily", "Timezone": "<none>", "Suspend": "False", "Active": 0, "Last Schedule": "<none>"}),
        ("coordination.k8s.io", "Lease", {"spec": {"holderIdentity": "n1"}}, {"Holder": "n1"}),
        ("apiextensions.k8s.io", "CustomResourceDefinition", {"metadata": {"name": "a", "creationTimestamp": "2024-01-01T00:00:00Z"}},
         {"Name": "a", "Created At": "2024-01-01T00:00:00Z"}),
        ("", "Namespace", {"metadata": {}, "status": {"phase": "Active"}}, {"Status": "Active", "Age": "<unknown>"}),
    ],
)  # fmt: skip
def test_columns(group: str, kind: str, document: dict[str, Any], expected: dict[str, Any]) -> None:
    found = cells(Kind(group, "v1", kind, kind.lower() + "s"), document)
    assert {name: found[name] for name in expected} == expected


def test_events_begin_with_when_they_were_seen() -> None:
    event = {"metadata": {"name": "e"}, "type": "Normal", "reason": "Started", "message": " hi\n", "involvedObject": {"kind": "Pod", "name": "p"},
             "lastTimestamp": timestamp(NOW - 5), "firstTimestamp": timestamp(NOW - 500), "count": 3, "source": {"component": "c", "host": "h"}}  # fmt: skip
    found = cells(EVENT, event)
    assert list(found)[:5] == ["Last Seen", "Type", "Reason", "Object", "Subobject"]
    assert (found["Last Seen"], found["First Seen"], found["Object"], found["Message"], found["Source"]) == (
        "5s",
        "8m20s",
        "pod/p",
        "hi",
        "c, h",
    )


@pytest.mark.parametrize("kind", [*COLUMNS, ("x.dev", "Thing")])
def test_empty_objects_have_a_row_of_every_kind(kind: tuple[str, str]) -> None:
    for document in ({}, {"metadata": {"name": "a"}, "spec": {}, "status": {}}):
        table = to_table(Kind(kind[0], "v1", kind[1], "x"), [document], now=NOW)
        assert len(table["rows"][0]["cells"]) == len(table["columnDefinitions"])
        json.dumps(table)


def test_what_a_row_carries() -> None:
    secret = {"metadata": {"name": "a"}, "data": {"x": ""}}
    with_object = to_table(
        SECRET, [secret], now=NOW, include="Object", headers=False, list_meta={"resourceVersion": "7"}
    )
    assert with_object["rows"][0]["object"] == {"apiVersion": "v1", "kind": "Secret", **secret}
    assert "columnDefinitions" not in with_object
    assert with_object["metadata"] == {"resourceVersion": "7"}
    assert to_table(SECRET, [secret], now=NOW)["rows"][0]["object"] == partial_metadata(secret)
    assert "object" not in to_table(SECRET, [secret], now=NOW, include="None")["rows"][0]
    assert partial_metadata(secret) == {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"name": "a"},
    }


def test_columns_of_custom_resources() -> None:
    columns = [
        {"name": "Runtime", "type": "string", "jsonPath": ".spec.runtime"},
        {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status', "priority": 1},
        {"name": "Replicas", "type": "integer", "jsonPath": ".status.replicas"},
        {"name": "Since", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        {"name": "Tags", "type": "string", "jsonPath": ".spec.tags"},
        {"name": "Missing", "type": "string", "jsonPath": ".spec.none"},
    ]
    document = {
        "metadata": {"name": "f", "creationTimestamp": timestamp(NOW - 3)}, "spec": {"runtime": "python", "tags": ["a", True]},
        "status": {"replicas": 2, "conditions": [{"type": "X", "status": "False"}, {"type": "Ready", "status": "True"}]},
    }  # fmt: skip
    table = to_table(CUSTOM, [document], now=NOW, columns=columns)
    assert [each["name"] for each in table["columnDefinitions"]] == ["Name", *(each["name"] for each in columns)]
    assert table["rows"][0]["cells"] == ["f", "python", "True", 2, "3s", "[a true]", None]
    assert table["columnDefinitions"][2]["priority"] == 1
    assert [each["name"] for each in to_table(CUSTOM, [], now=NOW)["columnDefinitions"]] == ["Name", "Age"]


# JSONPath

DOCUMENT = {"a": {"b.c": [1, {"d": 2}], "e": [{"n": "x", "v": 1}, {"n": "y", "v": 5}]}, "t": True}


@pytest.mark.parametrize(
    ("path", "values"),
    [
        (".a.e[0].v", [1]), ("{.a.e[1].n}", ["y"]), ("$.a.e[-1].v", [5]), (".a.e[*].v", [1, 5]), (".a['b.c'][1].d", [2]), (".a.b\\.c[0]", [1]),
        (".a.e[?(@.n=='y')].v", [5]), ('.a.e[?(@.n != "y")].v', [1]), (".a.e[?(@.v>=1)].n", ["x", "y"]), (".a.e[?(@.v > 1)].n", ["y"]),
        (".a.e[?(@.n)].v", [1, 5]), (".a.e[?(@.z)].v", []), (".a.e[7]", []), (".x.y", []), (".t", [True]), ("", [DOCUMENT]), (".a.e[?(@.n>3)]", []),
    ],
)  # fmt: skip
def test_paths(path: str, values: list[Any]) -> None:
    assert JsonPath(path)(DOCUMENT) == values


@pytest.mark.parametrize("path", ["a", ".a[", ".a[?(x)]", "..a", ".a[0", ".a[?(@.b==)]"])
def test_paths_that_are_none(path: str) -> None:
    with pytest.raises(ValueError, match="not a JSONPath"):
        JsonPath(path)


@given(st.text(alphabet=".[]?()@=<>'\"*\\ab01-{}$", max_size=20))
def test_any_text_is_a_path_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        JsonPath(text)(DOCUMENT)


def test_selectors_as_text() -> None:
    expressions = [{"key": "a", "operator": "In", "values": ["2", "1"]}, {"key": "b", "operator": "DoesNotExist"}]
    assert selector_text({"matchLabels": {"x": "y"}, "matchExpressions": expressions}) == "x=y,a in (1,2),!b"
    assert selector_text(None) == "<none>"


@pytest.mark.kubectl
async def test_kubectl_prints_our_tables(kubectl) -> None:
    document = pod("Running", status(RUNNING, ready=True), podIP="10.0.0.1", **READY)
    document["spec"]["nodeName"] = "n1"
    kubectl.recorder.now = NOW
    kubectl.recorder.objects = {
        "/api/v1/namespaces/default/pods": {"kind": "PodList", "items": [document]},
        "/api/v1/nodes": {"kind": "NodeList", "items": [{"metadata": {"name": "n1"}}]},
        "/api/v1/namespaces/default/services": {
            "kind": "ServiceList",
            "items": [{"metadata": {"name": "s"}, "spec": {"clusterIP": "1.1.1.1"}}],
        },
    }
    wide = (await kubectl("get", "pods", "-o", "wide")).splitlines()
    assert wide[0].split() == [
        "NAME",
        "READY",
        "STATUS",
        "RESTARTS",
        "AGE",
        "IP",
        "NODE",
        "NOMINATED",
        "NODE",
        "READINESS",
        "GATES",
    ]
    assert wide[1].split() == ["p", "1/1", "Running", "0", "90s", "10.0.0.1", "n1", "<none>", "<none>"]
    assert (await kubectl("get", "po", "--no-headers")).split() == ["p", "1/1", "Running", "0", "90s"]
    assert (await kubectl("get", "nodes")).splitlines()[0].split() == ["NAME", "STATUS", "ROLES", "AGE", "VERSION"]
    assert "CLUSTER-IP" in await kubectl("get", "svc")


def test_every_served_kind_with_columns_is_named_right() -> None:
    served = {(kind.group, kind.kind) for kind in BUILT_IN}
    assert {(kind.group, kind.kind) for kind in (POD, NODE, SERVICE, SECRET, EVENT)} <= set(COLUMNS) & served
