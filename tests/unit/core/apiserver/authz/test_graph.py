"""What a Pod's node reaches: every way that a Pod can refer to something, and the counting as Pods come and go."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.apiserver.authz.graph import Graph, Volume, pod_references, read_pod, read_volume

WAYS = {
    "secret volume": ({"volumes": [{"name": "v", "secret": {"secretName": "x"}}]}, "secrets"),
    "configMap volume": ({"volumes": [{"name": "v", "configMap": {"name": "x"}}]}, "configmaps"),
    "projected secret": ({"volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "x"}}]}}]}, "secrets"),
    "projected configMap": (
        {"volumes": [{"name": "v", "projected": {"sources": [{"downwardAPI": {}}, {"configMap": {"name": "x"}}]}}]},
        "configmaps",
    ),
    "claim": ({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "x"}}]}, "persistentvolumeclaims"),
    "csi secret": ({"volumes": [{"name": "v", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "x"}}}]}, "secrets"),
    "rbd secret": ({"volumes": [{"name": "v", "rbd": {"secretRef": {"name": "x"}}}]}, "secrets"),
    "azure secret": ({"volumes": [{"name": "v", "azureFile": {"secretName": "x"}}]}, "secrets"),
    "pull secret": ({"imagePullSecrets": [{"name": "x"}]}, "secrets"),
    "account": ({"serviceAccountName": "x"}, "serviceaccounts"),
    "env": ({"containers": [{"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "x"}}}]}]}, "secrets"),
    "env of a map": (
        {"containers": [{"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "x"}}}]}]}, "configmaps"
    ),
    "envFrom": ({"containers": [{"envFrom": [{"secretRef": {"name": "x"}}]}]}, "secrets"),
    "envFrom of a map": ({"initContainers": [{"envFrom": [{"configMapRef": {"name": "x"}}]}]}, "configmaps"),
    "ephemeral container": (
        {"ephemeralContainers": [{"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "x"}}}]}]}, "secrets"
    ),
}  # fmt: skip


def references(spec):
    pod = {"metadata": {"name": "p", "namespace": "team"}, "spec": {"nodeName": "n1", **spec}}
    return pod_references(read_pod(msgspec.json.encode(pod)))


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_refer(way):
    spec, plural = WAYS[way]
    assert references(spec) == {(plural, "team", "x")}


def test_what_refers_to_nothing():
    spec = {
        "volumes": [
            {"name": "v", "emptyDir": {}},
            {"name": "w", "secret": None},
            {"name": "u", "hostPath": {"path": "/x"}},
        ],
        "containers": [{"env": [{"name": "A", "value": "secretKeyRef"}], "envFrom": []}, {}],
    }
    assert references(spec) == set()
    assert references({"volumes": [{"name": "data", "ephemeral": {"volumeClaimTemplate": {}}}]}) == {
        ("persistentvolumeclaims", "team", "p-data")
    }


def test_a_volume_is_reached_through_its_claim_and_its_secrets_through_it():
    spec = {
        "claimRef": {"namespace": "team", "name": "data"},
        "csi": {
            "driver": "d",
            "nodeStageSecretRef": {"name": "stage", "namespace": "infra"},
            "controllerPublishSecretRef": {"name": "admin", "namespace": "infra"},
        },
    }
    volume = read_volume(msgspec.json.encode({"metadata": {"name": "pv"}, "spec": spec}))
    assert volume == Volume(("team", "data"), frozenset({("infra", "stage")}))
    graph = Graph()
    graph.put_volume("pv", volume)
    assert not graph.reaches("n1", "persistentvolumes", "", "pv")
    graph.put_pod("/pods/team/p", "n1", frozenset({("persistentvolumeclaims", "team", "data")}))
    assert graph.reaches("n1", "persistentvolumes", "", "pv") and graph.reaches("n1", "secrets", "infra", "stage")
    assert not graph.reaches("n1", "secrets", "infra", "admin") and not graph.reaches("n2", "secrets", "infra", "stage")
    graph.drop_volume("pv")
    assert not graph.reaches("n1", "secrets", "infra", "stage")


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["", "n1", "n2"]),
        st.frozensets(st.sampled_from([("secrets", "t", "x"), ("secrets", "t", "y"), ("configmaps", "t", "x")])),
        st.booleans(),
    ),
    max_size=30,
)


@given(STEPS)
@settings(max_examples=150, deadline=None)
def test_equals_a_look_at_all_pods(steps):
    graph, pods = Graph(), {}
    for key, node, refs, gone in steps:
        if gone:
            graph.drop_pod(key)
            pods.pop(key, None)
        else:
            graph.put_pod(key, node, refs)
            pods[key] = (node, refs)
        for asked in ("n1", "n2"):
            for plural, namespace, name in (("secrets", "t", "x"), ("secrets", "t", "y"), ("configmaps", "t", "x")):
                naive = any(on == asked and (plural, namespace, name) in said for on, said in pods.values())
                assert graph.reaches(asked, plural, namespace, name) is naive
    for key in list(pods):
        graph.drop_pod(key)
    assert not graph._reached and not graph._pods, "nothing is kept of what is gone"
