import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.api.kinds import BUILT_IN, CONFIG_MAP, CUSTOM_RESOURCE_DEFINITION, LEASE, POD, SECRET, SERVICE, Kind
from core.apiserver import schema
from core.errors import BadRequest


def valid(document: Any, kind: Kind = POD) -> dict[str, Any]:
    return schema.load().validate(kind, document, strict=True)[0]


def container(**fields: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "c", **fields}]}}


def test_unknown_fields_are_dropped_and_named() -> None:
    document = {
        "apiVersion": "v1", "kind": "Pod", "extra": 1, "metadata": {"name": "a", "annotations": {"any": "thing"}, "nme": "b"},
        "spec": {"foo": {"x": 1}, "containers": [{"name": "c"}, {"name": "d", "ports": [{"containerPort": 1, "hostprt": 2}]}]},
    }  # fmt: skip
    before = copy.deepcopy(document)
    found, messages = schema.load().validate(POD, document, strict=True)
    assert found == {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "annotations": {"any": "thing"}},
        "spec": {"containers": [{"name": "c"}, {"name": "d", "ports": [{"containerPort": 1}]}]},
    }  # fmt: skip
    assert messages == [
        'unknown field "extra"', 'unknown field "metadata.nme"', 'unknown field "spec.foo"', 'unknown field "spec.containers[1].ports[0].hostprt"',
    ]  # fmt: skip
    assert document == before
    assert schema.load().validate(POD, document, strict=False) == (found, [])


def test_unknown_fields_below_maps_have_their_key_in_the_path() -> None:
    properties = {"a": {"type": "string", "foo": 1}, "b": {"items": {"bar": 1, "type": "string"}, "type": "array"}}
    document = {"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": {"properties": properties}}}]}}
    _, messages = schema.load().validate(CUSTOM_RESOURCE_DEFINITION, document, strict=True)
    path = "spec.versions[0].schema.openAPIV3Schema.properties"
    assert messages == [f'unknown field "{path}.a.foo"', f'unknown field "{path}.b.items.bar"']


@pytest.mark.parametrize(
    ("document", "kind", "expected"),
    [
        ({"metadata": {"creationTimestamp": None, "labels": None}}, POD, {"metadata": {}}),
        ({"data": {"a": None, "b": ""}}, CONFIG_MAP, {"data": {"a": "", "b": ""}}),
        (container(command=["x", None]), POD, container(command=["x", ""])),
        ({"spec": {"containers": [None]}}, POD, {"spec": {"containers": [{}]}}),
        # Go leaves out zeros of what isn't a pointer, and keeps the others.
        (container(image="", tty=False, args=[], env=[]), POD, container()),
        ({"spec": {"automountServiceAccountToken": False, "terminationGracePeriodSeconds": 0, "hostNetwork": False}}, POD,
         {"spec": {"automountServiceAccountToken": False, "terminationGracePeriodSeconds": 0}}),
        ({"spec": {"ports": [{"port": 0, "targetPort": 0, "nodePort": 0}]}}, SERVICE, {"spec": {"ports": [{"port": 0, "targetPort": 0}]}}),
        ({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}, POD, {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
        # Quantities and times have one form each.
        (container(resources={"limits": {"cpu": 0.5, "memory": "1536Mi", "x": 2, "y": "1000m", "z": "0.1Gi"}}), POD,
         container(resources={"limits": {"cpu": "500m", "memory": "1536Mi", "x": "2", "y": "1", "z": "107374182400m"}})),
        ({"metadata": {"deletionTimestamp": "2024-01-01T02:00:00.5+02:00"}}, POD, {"metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z"}}),
        ({"spec": {"renewTime": "2024-01-01T00:00:00Z"}}, LEASE, {"spec": {"renewTime": "2024-01-01T00:00:00.000000Z"}}),
        ({"spec": {"renewTime": "2024-01-01T00:00:00.123456789Z"}}, LEASE, {"spec": {"renewTime": "2024-01-01T00:00:00.123456Z"}}),
        # Base64 may be in lines, as `base64` writes it.
        ({"data": {"a": "aGVs\nbG8=\r\n", "b": "aGl="}}, SECRET, {"data": {"a": "aGVsbG8=", "b": "aGk="}}),
        # What may be anything stays as it is.
        ({"metadata": {"managedFields": [{"fieldsV1": {"f:a": {}, "x": None}}]}}, POD, {"metadata": {"managedFields": [{"fieldsV1": {"f:a": {}, "x": None}}]}}),
    ],
)  # fmt: skip
def test_values_are_kept_as_go_would(document: dict[str, Any], kind: Kind, expected: dict[str, Any]) -> None:
    assert valid(document, kind) == expected


GO = "Go struct field"


@pytest.mark.parametrize(
    ("document", "kind", "words"),
    [
        ({"spec": {"containers": [{"name": 1}]}}, POD, f"json: cannot unmarshal number into {GO} Container.spec.containers.name of type string"),
        ({"spec": {"containers": {}}}, POD, f"json: cannot unmarshal object into {GO} PodSpec.spec.containers of type []v1.Container"),
        ({"spec": {"containers": ["x"]}}, POD, f"json: cannot unmarshal string into {GO} PodSpec.spec.containers of type v1.Container"),
        ({"spec": []}, POD, f"json: cannot unmarshal array into {GO} Pod.spec of type v1.PodSpec"),
        ({"spec": {"hostNetwork": "yes"}}, POD, f"json: cannot unmarshal string into {GO} PodSpec.spec.hostNetwork of type bool"),
        ({"spec": {"priority": 2**31}}, POD, f"json: cannot unmarshal number 2147483648 into {GO} PodSpec.spec.priority of type int32"),
        ({"spec": {"priority": 1.5}}, POD, f"json: cannot unmarshal number 1.5 into {GO} PodSpec.spec.priority of type int32"),
        ({"spec": {"priority": True}}, POD, f"json: cannot unmarshal bool into {GO} PodSpec.spec.priority of type int32"),
        ({"metadata": {"labels": {"a": 1}}}, POD, f"json: cannot unmarshal number into {GO} ObjectMeta.metadata.labels.a of type string"),
        ({"spec": {"ports": [{"targetPort": 1.5}]}}, SERVICE, "of type intstr.IntOrString"),
        ({"data": {"a": "not base64!"}}, SECRET, "illegal base64 data"),
        (container(resources={"limits": {"cpu": "lots"}}), POD, "quantities must match the regular expression"),
        (container(resources={"limits": {"cpu": "1" * 100}}), POD, "quantities must match the regular expression"),
        (container(resources={"limits": {"cpu": True}}), POD, "of type resource.Quantity"),
        ({"metadata": {"creationTimestamp": "yesterday"}}, POD, 'parsing time "yesterday" as "2006-01-02T15:04:05Z07:00"'),
        ({"metadata": {"creationTimestamp": "2024-13-01T00:00:00Z"}}, POD, "parsing time"),
        ([], POD, "json: cannot unmarshal array into Go value of type v1.Pod"),
    ],
)  # fmt: skip
def test_wrong_types_are_refused_in_the_words_of_go(document: Any, kind: Kind, words: str) -> None:
    with pytest.raises(BadRequest) as caught:
        valid(document, kind)
    assert caught.value.message.startswith(f'{kind.kind} in version "v1" cannot be handled as a {kind.kind}: ')
    assert words in caught.value.message


def test_schemas_in_definitions_may_be_booleans_or_lists() -> None:
    props = {
        "additionalProperties": False,
        "items": [{"type": "string"}],
        "dependencies": {"a": ["b"]},
        "default": None,
        "enum": [1, None],
    }
    document = {"spec": {"versions": [{"schema": {"openAPIV3Schema": props}}]}}
    found = valid(document, CUSTOM_RESOURCE_DEFINITION)
    assert found["spec"]["versions"][0]["schema"]["openAPIV3Schema"] == {
        "additionalProperties": False, "items": [{"type": "string"}], "dependencies": {"a": ["b"]}, "enum": [1, None],
    }  # fmt: skip


def test_kinds_that_are_not_built_in_have_no_type() -> None:
    custom = Kind("faaslite.dev", "v1", "Function", "functions")
    assert schema.load().struct(custom) is None
    with pytest.raises(LookupError):
        schema.load().validate(custom, {}, strict=True)


def test_merge_keys_and_list_keys() -> None:
    named = schema.load().named
    ports = named("core.v1.Container").fields["ports"]
    assert (ports.merge_key, ports.strategies, ports.list_type, ports.map_keys) == (
        "containerPort",
        ("merge",),
        "map",
        ("containerPort", "protocol"),
    )
    assert named("core.v1.PodSpec").fields["volumes"].strategies == ("merge", "retainKeys")
    assert named("core.v1.PodSpec").fields["tolerations"].list_type == "atomic"
    assert named("meta.v1.LabelSelector").atomic
    assert named("meta.v1.ObjectMeta").fields["finalizers"].list_type == "set"


def test_the_table_has_every_kind_we_serve_and_compiles_whole() -> None:
    table = schema.load()
    assert all(table.struct(kind) is not None for kind in BUILT_IN)
    for name in table._raw:
        struct = table.named(name)
        numbers = [field.number for field in struct.fields.values() if field.number]
        assert len(numbers) == len(set(numbers)), name
        assert len(struct.by_number) >= len(numbers)
    for group, version, kind in [
        ("batch", "v1", "CronJob"), ("autoscaling", "v2", "HorizontalPodAutoscaler"), ("policy", "v1", "Eviction"),
        ("storage.k8s.io", "v1", "StorageClass"), ("certificates.k8s.io", "v1", "CertificateSigningRequest"), ("node.k8s.io", "v1", "RuntimeClass"),
        ("admissionregistration.k8s.io", "v1", "MutatingWebhookConfiguration"), ("apiregistration.k8s.io", "v1", "APIService"),
        ("metrics.k8s.io", "v1beta1", "PodMetrics"), ("events.k8s.io", "v1", "Event"), ("networking.k8s.io", "v1", "NetworkPolicy"),
    ]:  # fmt: skip
        assert table.of(group, version, kind) is not None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["metadata", "spec", "status", "containers", "labels", "name", "resources", "limits", "cpu", "volumes",
                         "creationTimestamp", "ports", "env", "x"]), inner, max_size=4),
    max_leaves=15,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(BUILT_IN), st.dictionaries(st.sampled_from(["metadata", "spec", "status", "data"]), JSON))
def test_any_document_is_pruned_once_or_refused(kind: Kind, document: dict[str, Any]) -> None:
    try:
        found = valid(document, kind)
    except BadRequest:
        return
    assert schema.load().validate(kind, found, strict=True) == (found, [])
