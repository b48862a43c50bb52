"""Whatever a client sends, it gets an answer or an `ApiError`, never an unexpected exception (a 500)."""

from __future__ import annotations

import copy
import json
import random

import pytest

from core.errors import ApiError, InternalError

CORE = "/api/v1/namespaces/default"
_CONTAINER = {
    "name": "c", "image": "nginx", "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
    "ports": [{"containerPort": 80}], "volumeMounts": [{"name": "v", "mountPath": "/v"}],
    "livenessProbe": {"httpGet": {"port": 80}, "periodSeconds": 5}, "lifecycle": {"preStop": {"exec": {"command": ["x"]}}},
    "resources": {"limits": {"cpu": "1"}, "requests": {"memory": "1Gi"}},
}  # fmt: skip
_SPEC = {
    "containers": [_CONTAINER], "volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}],
    "tolerations": [{"key": "a", "operator": "Exists"}], "nodeSelector": {"a": "b"},
}  # fmt: skip
_SELECTOR = {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "a", "operator": "Exists"}]}
_META = {
    "name": "a", "labels": {"a": "b"}, "annotations": {"x": "y"}, "finalizers": ["x/y"], "resourceVersion": "",
    "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": True}],
}  # fmt: skip
_CRD = {
    "metadata": {"name": "ws.x.io"},
    "spec": {
        "group": "x.io", "scope": "Namespaced", "names": {"plural": "ws", "kind": "W"},
        "versions": [{"name": "v1", "served": True, "storage": True, "subresources": {"scale": {"specReplicasPath": ".spec.r", "statusReplicasPath": ".status.r"}},
                      "selectableFields": [{"jsonPath": ".spec.s"}], "additionalPrinterColumns": [{"name": "S", "type": "string", "jsonPath": ".spec.s"}],
                      "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {"r": {"type": "integer"}, "s": {"type": "string"}}}}}}}],
    },
}  # fmt: skip
BODIES = [
    (f"{CORE}/pods", {"metadata": _META, "spec": _SPEC}),
    ("/apis/apps/v1/namespaces/default/replicasets", {"metadata": _META, "spec": {"replicas": 1, "selector": _SELECTOR, "template": {"metadata": {"labels": {"a": "b"}}, "spec": _SPEC}}}),
    (f"{CORE}/services", {"metadata": _META, "spec": {"ports": [{"port": 80, "targetPort": "x", "name": "n"}], "selector": {"a": "b"}, "type": "ClusterIP", "clusterIP": "127.32.0.5", "clusterIPs": ["127.32.0.5"]}}),
    (f"{CORE}/secrets", {"metadata": _META, "data": {"a": "eA=="}, "stringData": {"b": "c"}, "type": "Opaque", "immutable": True}),
    (f"{CORE}/configmaps", {"metadata": _META, "data": {"a": "b"}, "binaryData": {"c": "eA=="}}),
    ("/api/v1/nodes", {"metadata": _META, "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}, "status": {"capacity": {"cpu": "1"}}}),
    (f"{CORE}/events", {"metadata": _META, "involvedObject": {"kind": "Pod", "namespace": "default"}, "source": {"component": "x"}}),
    ("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", {"metadata": _META, "addressType": "IPv4", "endpoints": [{"addresses": ["127.0.0.1"]}], "ports": [{"port": 1}]}),
    ("/apis/coordination.k8s.io/v1/namespaces/default/leases", {"metadata": _META, "spec": {"leaseDurationSeconds": 4, "renewTime": "2026-01-01T00:00:00.000000Z"}}),
    ("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", _CRD),
    ("/apis/authorization.k8s.io/v1/subjectaccessreviews", {"spec": {"user": "x", "groups": ["g"], "resourceAttributes": {"verb": "get", "resource": "pods"}}}),
    ("/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": "secret", "audiences": ["a"]}}),
]  # fmt: skip
_TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": _SPEC}
_ONCE = {"metadata": {"labels": {"a": "b"}}, "spec": {**_SPEC, "restartPolicy": "Never"}}
_WORKLOAD = {"selector": {"matchLabels": {"a": "b"}}, "template": _TEMPLATE}
_REF = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
_HOOK = {
    "name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"], "clientConfig": {"service": {"name": "s", "namespace": "ns"}},
    "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}],
}  # fmt: skip
_CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
_MORE: list[tuple[str, dict[str, object]]] = [
    ("apps/v1/namespaces/default/deployments", {"spec": {**_WORKLOAD, "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": "25%"}}}}),
    ("apps/v1/namespaces/default/statefulsets", {"spec": {**_WORKLOAD, "serviceName": "s", "updateStrategy": {"rollingUpdate": {"partition": 1}}, "volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": _CLAIM}]}}),
    ("apps/v1/namespaces/default/daemonsets", {"spec": {**_WORKLOAD, "updateStrategy": {"rollingUpdate": {"maxUnavailable": 1}}}}),
    ("apps/v1/namespaces/default/controllerrevisions", {"revision": 1, "data": {"spec": {"x": 1}}}),
    ("batch/v1/namespaces/default/jobs", {"spec": {"completions": 2, "parallelism": 1, "template": _ONCE, "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1]}}]}}}),
    ("batch/v1/namespaces/default/cronjobs", {"spec": {"schedule": "* * * * *", "timeZone": "UTC", "jobTemplate": {"spec": {"template": _ONCE}}}}),
    ("autoscaling/v2/namespaces/default/horizontalpodautoscalers", {"spec": {"minReplicas": 1, "maxReplicas": 3, "scaleTargetRef": _REF, "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}], "behavior": {"scaleUp": {"policies": []}}}}),
    ("autoscaling/v1/namespaces/default/horizontalpodautoscalers", {"metadata": {**_META, "annotations": {"autoscaling.alpha.kubernetes.io/metrics": "[]"}}, "spec": {"maxReplicas": 3, "scaleTargetRef": _REF, "targetCPUUtilizationPercentage": 50}}),
    ("policy/v1/namespaces/default/poddisruptionbudgets", {"spec": {"minAvailable": "50%", "selector": _SELECTOR}}),
    ("networking.k8s.io/v1/namespaces/default/ingresses", {"spec": {"rules": [{"host": "a.b", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"number": 80}}}}]}}]}}),
    ("networking.k8s.io/v1/namespaces/default/networkpolicies", {"spec": {"podSelector": _SELECTOR, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 80}]}]}}),
    ("networking.k8s.io/v1/ingressclasses", {"spec": {"controller": "a.b/c", "parameters": {"kind": "k", "name": "x"}}}),
    ("storage.k8s.io/v1/storageclasses", {"provisioner": "p", "parameters": {"a": "b"}}),
    ("storage.k8s.io/v1/csidrivers", {"spec": {"attachRequired": True, "volumeLifecycleModes": ["Persistent"]}}),
    ("storage.k8s.io/v1/csinodes", {"spec": {"drivers": [{"name": "d", "nodeID": "x"}]}}),
    ("storage.k8s.io/v1/volumeattachments", {"spec": {"attacher": "a", "nodeName": "x", "source": {"persistentVolumeName": "p"}}}),
    ("rbac.authorization.k8s.io/v1/namespaces/default/roles", {"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}),
    ("rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", {"roleRef": {"kind": "ClusterRole", "name": "view"}, "subjects": [{"kind": "User", "name": "u"}]}),
    ("scheduling.k8s.io/v1/priorityclasses", {"value": 5, "preemptionPolicy": "Never"}),
    ("node.k8s.io/v1/runtimeclasses", {"handler": "h", "scheduling": {"nodeSelector": {"a": "b"}}}),
    ("admissionregistration.k8s.io/v1/validatingwebhookconfigurations", {"webhooks": [_HOOK]}),
    ("admissionregistration.k8s.io/v1/mutatingwebhookconfigurations", {"webhooks": [_HOOK]}),
    ("events.k8s.io/v1/namespaces/default/events", {"regarding": {"kind": "Pod", "namespace": "default"}, "eventTime": "2026-01-01T00:00:00.000000Z", "type": "Normal", "reason": "R", "action": "A", "reportingController": "c", "reportingInstance": "i", "note": "n"}),
]  # fmt: skip
BODIES += [(f"/apis/{path}", {"metadata": _META, **body}) for path, body in _MORE]
_CORE_MORE: list[tuple[str, dict[str, object]]] = [
    ("replicationcontrollers", {"spec": {"replicas": 1, "template": _TEMPLATE}}),
    ("podtemplates", {"template": _TEMPLATE}),
    ("persistentvolumeclaims", {"spec": _CLAIM}),
    ("limitranges", {"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}, "default": {"cpu": "500m"}}]}}),
    ("resourcequotas", {"spec": {"hard": {"pods": "5"}, "scopes": ["BestEffort"]}}),
]  # fmt: skip
BODIES += [(f"{CORE}/{path}", {"metadata": _META, **body}) for path, body in _CORE_MORE]
BODIES.append(("/api/v1/persistentvolumes", {"metadata": _META, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}}))  # fmt: skip
JUNK = [None, 0, -1, 2**70, 1.5, "", "x y/é", "\x00", [], [None], [[]], {}, {"": None}, {"a": {"b": [1]}}, True]


def _spoil(document, dice):
    """A copy in which one place, chosen at random, holds junk."""
    made = copy.deepcopy(document)
    at = made
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            return made
        key = dice.choice(keys)
        if isinstance(at[key], dict | list) and at[key] and dice.random() < 0.8:
            at = at[key]
            continue
        at[key] = dice.choice(JUNK)
        return made


async def _survives(admin, method, path, body, content_type="application/json", **query):
    try:
        await admin.transport.request(method, path, query, json.dumps(body).encode(), content_type)
    except InternalError as error:
        pytest.fail(f"{method} {path} {body}: {error}")
    except ApiError:
        return
    except Exception as error:
        raise AssertionError(f"{method} {path} {json.dumps(body)}") from error


@pytest.mark.parametrize(
    ("path", "body"), BODIES, ids=[path.removeprefix("/apis/").removeprefix("/api/") for path, _ in BODIES]
)
async def test_spoiled_bodies(admin, path, body):
    dice = random.Random(path)
    await admin.post(path, body)
    for number in range(100):
        name = (body.get("metadata") or {}).get("name", "a")
        spoiled = _spoil(body, dice)
        await _survives(
            admin, "POST", path, spoiled, fieldValidation=dice.choice(["", "Strict"]), dryRun=dice.choice(["", "All"])
        )
        await _survives(admin, "PUT", f"{path}/{name}", spoiled)
        kind = dice.choice(["merge-patch", "strategic-merge-patch", "json-patch"])
        await _survives(
            admin,
            "PATCH",
            f"{path}/{name}{dice.choice(['', '/status', '/scale'])}",
            spoiled,
            f"application/{kind}+json",
        )
        if number % 10 == 0:
            await _survives(admin, "POST", path, body)


async def test_spoiled_options_and_queries(admin, pod):
    dice = random.Random(7)
    options = {"gracePeriodSeconds": 5, "preconditions": {"uid": "x"}, "propagationPolicy": "Orphan", "dryRun": ["All"]}
    binding = {"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n1"}}
    eviction = {"metadata": {"name": "a"}, "deleteOptions": options}
    await admin.post(f"{CORE}/pods", pod("a"))
    names = (
        "labelSelector",
        "fieldSelector",
        "limit",
        "continue",
        "resourceVersion",
        "resourceVersionMatch",
        "gracePeriodSeconds",
        "dryRun",
    )
    words = (
        "",
        "x",
        "-1",
        "0",
        "1e9",
        "a in (",
        "a=b,",
        "=",
        "!!",
        "\x00",
        "Exact",
        "99999999999999999999",
        "spec.nodeName=",
        "é",
    )
    for _ in range(150):
        await _survives(admin, "DELETE", f"{CORE}/pods/b", _spoil(options, dice))
        await _survives(admin, "POST", f"{CORE}/pods/a/binding", _spoil(binding, dice))
        await _survives(admin, "POST", f"{CORE}/pods/a/eviction", _spoil(eviction, dice))
        query = {dice.choice(names): dice.choice(words) for _ in range(2)}
        await _survives(admin, "GET", f"{CORE}/pods", None, **query)
