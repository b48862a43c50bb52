import base64
import contextlib
import struct
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.api.kinds import BUILT_IN, Kind
from core.apiserver import protobuf, schema
from core.errors import BadRequest

CAPTURED: dict[str, dict[str, Any]] = msgspec.json.decode((Path(__file__).parent / "data/protobuf.json").read_bytes())
"""Bodies that kubectl 1.32 sent, and the documents that they stand for."""


# A writer of the wire format, for what kubectl can't be made to send


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def part(number: int, value: int | bytes | str | float) -> bytes:
    if isinstance(value, float):
        return varint(number << 3 | 1) + struct.pack("<d", value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    raw = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def envelope(api_version: str, kind: str, raw: bytes, **more: bytes) -> bytes:
    return protobuf.MAGIC + part(1, part(1, api_version) + part(2, kind)) + part(2, raw) + b"".join(more.values())


@pytest.mark.kubectl
async def test_kubectl_still_sends_protobuf_that_we_read(kubectl) -> None:
    assert (
        await kubectl("create", "deploy", "web", "--image=nginx:1", "--replicas=0", "--port=80")
        == "deployment.apps/web created\n"
    )
    ((_, _, content_type, raw),) = kubectl.recorder.received
    assert content_type == "application/vnd.kubernetes.protobuf"
    assert protobuf.decode(raw) == CAPTURED["deployment"]["document"]


@pytest.mark.parametrize("name", list(CAPTURED))
def test_what_kubectl_sends(name: str) -> None:
    assert protobuf.decode(base64.b64decode(CAPTURED[name]["body"])) == CAPTURED[name]["document"]


@pytest.mark.parametrize("name", list(CAPTURED))
def test_what_kubectl_sends_is_good_by_the_schema(name: str) -> None:
    document = CAPTURED[name]["document"]
    group, _, version = document["apiVersion"].rpartition("/")
    kind = Kind(group, version, document["kind"], "")
    assert schema.load().validate(kind, document, strict=True) == (document, [])


def test_times_and_owners_of_a_lease() -> None:
    owner = part(1, "Node") + part(3, "n1") + part(4, "u1") + part(5, "v1") + part(6, 0)
    metadata = part(1, "n1") + part(8, part(1, 1700000000) + part(2, 5)) + part(13, owner)
    spec = part(1, "n1") + part(2, 40) + part(4, part(1, 1700000000) + part(2, 123456789))
    assert protobuf.decode(envelope("coordination.k8s.io/v1", "Lease", part(1, metadata) + part(2, spec))) == {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": "n1",
            "creationTimestamp": "2023-11-14T22:13:20Z",
            "ownerReferences": [{"kind": "Node", "name": "n1", "uid": "u1", "apiVersion": "v1", "controller": False}],
        },
        "spec": {"holderIdentity": "n1", "leaseDurationSeconds": 40, "renewTime": "2023-11-14T22:13:20.123456Z"},
    }


def test_pod_with_inlined_sources_quantities_and_ints_or_strings() -> None:
    limits = part(1, part(1, "cpu") + part(2, part(1, "500m")))
    probe = part(1, part(2, part(1, "/x") + part(2, part(1, 1) + part(3, "http")))) + part(2, 0) + part(3, 5)
    container = part(1, "c") + part(2, "") + part(8, limits) + part(10, probe) + part(18, 0)
    volume = part(1, "v") + part(2, part(2, b""))
    token = part(1, "t") + part(2, part(26, part(1, part(3, part(1, part(1, "x"))))))
    spec = part(1, volume) + part(1, token) + part(2, container) + part(21, 0)
    found = protobuf.decode(envelope("v1", "Pod", part(2, spec) + part(3, b"")))
    assert found == {
        "apiVersion": "v1",
        "kind": "Pod",
        "spec": {
            "volumes": [
                {"name": "v", "emptyDir": {}},
                {"name": "t", "projected": {"sources": [{"configMap": {"name": "x"}}]}},
            ],
            "containers": [
                {
                    "name": "c",
                    "resources": {"limits": {"cpu": "500m"}},
                    "livenessProbe": {"httpGet": {"path": "/x", "port": "http"}, "timeoutSeconds": 5},
                }
            ],
            "automountServiceAccountToken": False,
        },
    }


def test_lists_inside_of_maps_and_packed_numbers() -> None:
    extra = part(5, part(1, "scopes") + part(2, part(1, "a") + part(1, "b"))) + part(5, part(1, "none"))
    review = protobuf.decode(envelope("authorization.k8s.io/v1", "SubjectAccessReview", part(2, part(3, "u") + extra)))
    assert review["spec"] == {"user": "u", "extra": {"scopes": ["a", "b"], "none": []}}
    packed = part(4, varint(1) + varint(-2))
    groups = protobuf.decode(envelope("v1", "Pod", part(2, part(14, packed))))
    assert groups["spec"] == {"securityContext": {"supplementalGroups": [1, -2]}}


def test_schemas_of_custom_resource_definitions() -> None:
    props = (
        part(5, "object")
        + part(29, part(1, "a") + part(2, part(5, "array") + part(24, part(1, part(5, "string")))))
        + part(29, part(1, "n") + part(2, part(5, "number") + part(9, 1.5) + part(8, part(1, b"2.5"))))
        + part(30, part(1, 1))
        + part(20, part(1, b'"x"'))
    )
    schema_of = part(4, part(1, props))
    version = part(1, "v1") + part(2, 1) + part(3, 0) + schema_of
    found = protobuf.decode(
        envelope("apiextensions.k8s.io/v1", "CustomResourceDefinition", part(2, part(1, "g") + part(7, version)))
    )
    assert found["spec"]["versions"] == [
        {
            "name": "v1",
            "served": True,
            "storage": False,
            "schema": {
                "openAPIV3Schema": {
                    "type": "object",
                    "properties": {
                        "a": {"type": "array", "items": {"type": "string"}},
                        "n": {"type": "number", "maximum": 1.5, "default": 2.5},
                    },
                    "additionalProperties": True,
                    "enum": ["x"],
                }
            },
        }
    ]


def test_options_are_known_in_every_group_and_unknown_fields_are_skipped() -> None:
    raw = part(1, 0) + part(4, "Background") + part(5, "All") + part(999, "new") + varint(998 << 3 | 5) + b"1234"
    assert protobuf.decode(envelope("apps/v1", "DeleteOptions", raw)) == {
        "apiVersion": "apps/v1",
        "kind": "DeleteOptions",
        "gracePeriodSeconds": 0,
        "propagationPolicy": "Background",
        "dryRun": ["All"],
    }


@pytest.mark.parametrize(
    "body",
    [
        b"", b"k8s\x00", b"{}", protobuf.MAGIC + b"\xff", envelope("v1", "Nothing", b""), envelope("v1", "Pod", b"\x0a\xff"),
        envelope("v1", "Pod", part(1, 5)), envelope("v1", "Pod", part(1, part(1, b"\xff"))), envelope("v1", "Pod", b"\x00\x00"),
        envelope("v1", "Pod", b"\x0b"), envelope("v1", "Pod", b"", encoding=part(3, "gzip")),
        envelope("v1", "Pod", b"", type=part(4, "application/json")),
        envelope("coordination.k8s.io/v1", "Lease", part(2, part(4, part(1, 2**60)))),
        envelope("coordination.k8s.io/v1", "Lease", part(2, part(2, 2**40))),
        envelope("apps/v1", "ControllerRevision", part(2, part(1, b"{not json"))),
    ],
)  # fmt: skip
def test_malformed_bodies_are_bad_requests(body: bytes) -> None:
    with pytest.raises(BadRequest):
        protobuf.decode(body)


def test_nesting_is_bounded() -> None:
    raw = part(5, "object")
    for _ in range(500):
        raw = part(28, raw)
    body = envelope("apiextensions.k8s.io/v1", "CustomResourceDefinition", part(2, part(7, part(4, part(1, raw)))))
    with pytest.raises(BadRequest):
        protobuf.decode(body)


def test_every_field_of_a_served_kind_has_a_number() -> None:
    seen: set[str] = set()

    def visit(struct_: schema.Struct) -> None:
        if struct_.name in seen:
            return
        seen.add(struct_.name)
        reachable = {
            name
            for each in struct_.by_number.values()
            for name in ([each.name] if isinstance(each, schema.Field) else each.fields)
        }
        deeper = [each for each in struct_.by_number.values() if isinstance(each, schema.Struct)]
        for each in deeper:
            visit(each)
            reachable |= {
                name for inner in each.by_number.values() if isinstance(inner, schema.Struct) for name in inner.fields
            }
        missing = set(struct_.fields) - reachable - {"apiVersion", "kind"}
        assert not missing or struct_.name == "core.v1.NodeSystemInfo", (struct_.name, missing)
        for field in struct_.fields.values():
            shape = field.shape
            while shape.item is not None:
                shape = shape.item
            if shape.struct is not None:
                visit(shape.struct)

    for kind in BUILT_IN:
        found = schema.load().struct(kind)
        assert found is not None
        visit(found)
    assert len(seen) > 200


KINDS = [(kind.api_version, kind.kind) for kind in BUILT_IN]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(KINDS), st.recursive(st.binary(max_size=12), lambda inner: st.lists(
    st.tuples(st.integers(1, 40), inner | st.integers(0, 2**64 - 1)), max_size=5).map(lambda parts: b"".join(part(*each) for each in parts)), max_leaves=15))  # fmt: skip
def test_random_messages_give_a_document_or_a_bad_request(kind: tuple[str, str], raw: bytes) -> None:
    try:
        found = protobuf.decode(envelope(*kind, raw))
    except BadRequest:
        return
    assert (found["apiVersion"], found["kind"]) == kind
    assert msgspec.json.decode(msgspec.json.encode(found)) == found


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(CAPTURED)),
    st.lists(st.tuples(st.integers(4, 400), st.integers(0, 255)), max_size=4),
    st.integers(0, 400),
)
def test_damaged_bodies_give_a_document_or_a_bad_request(name: str, changes: list[tuple[int, int]], end: int) -> None:
    body = bytearray(base64.b64decode(CAPTURED[name]["body"]))
    for at, byte in changes:
        body[at % len(body)] = byte
    with contextlib.suppress(BadRequest):
        protobuf.decode(bytes(body[: end or None]))
