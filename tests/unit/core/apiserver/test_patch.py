import copy
from typing import Any

import msgspec
import pytest

from core.api.kinds import POD, Kind
from core.apiserver import schema
from core.apiserver.patch import JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, apply_patch
from core.errors import BadRequest, UnsupportedMediaType

CUSTOM = Kind("faaslite.dev", "v1", "Function", "functions")


def test_each_content_type_is_its_patch() -> None:
    pod = {"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
    before = copy.deepcopy(pod)
    table = schema.load()
    merged = apply_patch(POD, pod, b'{"spec":{"containers":[{"name":"d"}]}}', MERGE_PATCH, table)
    strategic = apply_patch(
        POD, pod, b'{"spec":{"containers":[{"name":"c","image":"y"}]}}', f"{STRATEGIC_PATCH}; x=y", table
    )
    changed = apply_patch(POD, pod, [{"op": "replace", "path": "/metadata/name", "value": "b"}], JSON_PATCH, table)
    assert merged["spec"]["containers"] == [{"name": "d"}]
    assert strategic["spec"]["containers"] == [{"name": "c", "image": "y"}]
    assert changed["metadata"]["name"] == "b"
    assert pod == before


def test_custom_resources_have_no_strategic_merge() -> None:
    with pytest.raises(
        UnsupportedMediaType, match="json-patch.json, application/merge-patch.json, application/apply-patch.yaml$"
    ):
        apply_patch(CUSTOM, {}, b"{}", STRATEGIC_PATCH, schema.load())
    assert apply_patch(CUSTOM, {"a": 1}, b'{"a": 2}', MERGE_PATCH, schema.load()) == {"a": 2}


@pytest.mark.parametrize("content_type", ["application/json", "", "application/apply-patch+yaml"])
def test_other_content_types_are_refused(content_type: str) -> None:
    with pytest.raises(UnsupportedMediaType, match="strategic-merge-patch"):
        apply_patch(POD, {}, b"{}", content_type, schema.load())


@pytest.mark.parametrize("content_type", [JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH])
@pytest.mark.parametrize("patch", [b"", b"{", b"1", b'"a"', b"null", "text", 3])
def test_what_is_no_patch_is_a_bad_request(content_type: str, patch: Any) -> None:
    with pytest.raises(BadRequest, match="error decoding patch"):
        apply_patch(POD, {}, patch, content_type, schema.load())


@pytest.mark.parametrize("content_type", [MERGE_PATCH, STRATEGIC_PATCH])
def test_nothing_is_shared_with_document_or_patch(content_type: str) -> None:
    pod = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "args": ["x"]}]}}
    patch = {"metadata": {"annotations": {"k": "v"}}, "spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}
    was = msgspec.json.encode([pod, patch])
    found = apply_patch(POD, pod, patch, content_type, schema.load())
    found["metadata"]["labels"]["a"] = found["metadata"]["annotations"]["k"] = "changed"
    found["spec"]["containers"][0]["args"].append("y")
    found["spec"]["volumes"][0]["emptyDir"]["medium"] = "Memory"
    assert msgspec.json.encode([pod, patch]) == was
