import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.apiserver import patch_json
from core.apiserver.patch_json import json_patch
from core.errors import ApiError, BadRequest, Invalid, TooLarge

DOCUMENT: dict[str, Any] = {"a": {"b": [1, 2, 3], "~/": "odd"}, "c": None, "d": True}


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ({"op": "add", "path": "/x", "value": [1]}, {**DOCUMENT, "x": [1]}),
        ({"op": "add", "path": "/a/b/1", "value": 9}, {**DOCUMENT, "a": {"b": [1, 9, 2, 3], "~/": "odd"}}),
        ({"op": "add", "path": "/a/b/-", "value": 9}, {**DOCUMENT, "a": {"b": [1, 2, 3, 9], "~/": "odd"}}),
        ({"op": "add", "path": "", "value": {"n": 1}}, {"n": 1}),
        ({"op": "remove", "path": "/a/b/0"}, {**DOCUMENT, "a": {"b": [2, 3], "~/": "odd"}}),
        ({"op": "remove", "path": "/a/~0~1"}, {**DOCUMENT, "a": {"b": [1, 2, 3]}}),
        ({"op": "replace", "path": "/d", "value": None}, {**DOCUMENT, "d": None}),
        ({"op": "move", "from": "/a/b", "path": "/c"}, {"a": {"~/": "odd"}, "c": [1, 2, 3], "d": True}),
        ({"op": "copy", "from": "/a/b", "path": "/d"}, {**DOCUMENT, "d": [1, 2, 3]}),
        ({"op": "test", "path": "/a/b", "value": [1, 2.0, 3]}, DOCUMENT),
        ({"op": "test", "path": "/missing", "value": None}, DOCUMENT),
    ],
)
def test_operations(operation: dict[str, Any], expected: dict[str, Any]) -> None:
    before = copy.deepcopy(DOCUMENT)
    assert json_patch(DOCUMENT, [operation]) == expected
    assert before == DOCUMENT


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        ({"op": "test", "path": "/d", "value": 1}, "testing value /d failed: test failed"),
        ({"op": "test", "path": "/missing", "value": 1}, "doc is missing key: /missing: missing value"),
        ({"op": "remove", "path": "/x"}, "remove operation does not apply: doc is missing key: /x: missing value"),
        ({"op": "replace", "path": "/a/x", "value": 1}, "replace operation does not apply: doc is missing key: /a/x"),
        (
            {"op": "add", "path": "/x/y", "value": 1},
            'add operation does not apply: doc is missing path: "/x/y": missing value',
        ),
        ({"op": "add", "path": "/d/y", "value": 1}, "missing value"),
        ({"op": "add", "path": "/a/b/4", "value": 1}, "invalid index referenced"),
        ({"op": "add", "path": "/a/b/01", "value": 1}, "invalid index referenced"),
        ({"op": "replace", "path": "/a/b/-", "value": 1}, "invalid index referenced"),
        ({"op": "remove", "path": "/a/b/-1"}, "invalid index referenced"),
        ({"op": "add", "path": "no-slash", "value": 1}, "missing path"),
        ({"op": "add", "path": "/x"}, "missing value"),
        ({"op": "add", "value": 1}, "failed to decode path"),
        ({"op": "copy", "path": "/x"}, "failed to decode path"),
        ({"op": "move", "from": "/a", "path": "/a/b"}, "is a parent of"),
        ({"op": "jump", "path": "/x"}, "Unexpected kind: jump"),
        ({"path": "/x"}, "Unexpected kind: unknown"),
        ({"op": "replace", "path": "", "value": [1]}, "not an object"),
        ({"op": "remove", "path": ""}, "not an object"),
    ],
)
def test_operations_that_do_not_apply_are_invalid(operation: dict[str, Any], words: str) -> None:
    with pytest.raises(Invalid) as caught:
        json_patch(DOCUMENT, [{"op": "add", "path": "/seen", "value": 1}, operation])
    assert words in caught.value.message
    assert caught.value.status()["code"] == 422
    assert "seen" not in DOCUMENT


@pytest.mark.parametrize("patch", [{}, "x", None, [1], [[]]])
def test_what_is_no_list_of_operations_is_a_bad_request(patch: Any) -> None:
    with pytest.raises(BadRequest):
        json_patch({}, patch)


def test_patches_cannot_fill_the_memory() -> None:
    with pytest.raises(TooLarge):
        json_patch({}, [{"op": "add", "path": "/a", "value": 1}] * (patch_json.MAX_OPERATIONS + 1))
    doubling = [{"op": "add", "path": "/a", "value": ["x"]}] + [{"op": "copy", "from": "/a", "path": "/a/-"}] * 40
    with pytest.raises(TooLarge):
        json_patch({}, doubling)


# Against a reference that rebuilds the document along the path


class Refused(Exception):
    pass


def rebuilt(value: Any, path: list[str], change: Any) -> Any:
    """`value` in which the container of the last step of `path` is what `change` makes of it."""
    if len(path) == 1:
        return change(value, path[0])
    if isinstance(value, dict):
        if path[0] not in value:
            raise Refused
        return {**value, path[0]: rebuilt(value[path[0]], path[1:], change)}
    if isinstance(value, list):
        at = position(value, path[0], len(value))
        return [*value[:at], rebuilt(value[at], path[1:], change), *value[at + 1 :]]
    raise Refused


def position(items: list[Any], text: str, bound: int) -> int:
    if not text.isdigit() or str(int(text)) != text or int(text) >= bound:
        raise Refused
    return int(text)


def reference(document: Any, operation: dict[str, Any]) -> Any:
    name, value = operation["op"], operation.get("value")

    def insert(container: Any, last: str) -> Any:
        if isinstance(container, dict):
            return {**container, last: value}
        if isinstance(container, list):
            at = len(container) if last == "-" else position(container, last, len(container) + 1)
            return [*container[:at], value, *container[at:]]
        raise Refused

    def drop(container: Any, last: str) -> Any:
        if isinstance(container, dict) and last in container:
            return {key: each for key, each in container.items() if key != last}
        if isinstance(container, list):
            at = position(container, last, len(container))
            return container[:at] + container[at + 1 :]
        raise Refused

    def exchange(container: Any, last: str) -> Any:
        if isinstance(container, dict):
            drop(container, last)
            return {**container, last: value}
        return insert(drop(container, last), last)

    change = {"add": insert, "remove": drop, "replace": exchange}[name]
    return rebuilt(document, operation["path"].split("/")[1:], change)


SCALARS = st.integers(0, 2) | st.sampled_from(["x", True, None])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab0"), inner, max_size=3),
    max_leaves=8,
)
OPERATIONS = st.fixed_dictionaries(
    {
        "op": st.sampled_from(["add", "remove", "replace"]),
        "path": st.lists(st.sampled_from(["a", "b", "0", "1", "-"]), min_size=1, max_size=3).map(
            lambda parts: "/" + "/".join(parts)
        ),
        "value": VALUES,
    }
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from("ab0"), VALUES, min_size=1, max_size=3), st.lists(OPERATIONS, max_size=3))
def test_it_is_the_reference_and_changes_nothing(document: dict[str, Any], operations: list[dict[str, Any]]) -> None:
    before = copy.deepcopy((document, operations))
    expected: Any = document
    try:
        for each in operations:
            expected = reference(expected, each)
    except Refused:
        with pytest.raises(Invalid):
            json_patch(document, operations)
    else:
        found = json_patch(document, operations)
        assert repr(found) == repr(expected) or found == expected
    assert (document, operations) == before


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.text("ab", max_size=1), VALUES, max_size=3),
    st.lists(st.dictionaries(st.sampled_from(["op", "path", "from", "value"]),
                             st.sampled_from(["move", "copy", "test", "add", "/a", "/a/0", "", "/", "/b/-"]) | VALUES), max_size=3),
)  # fmt: skip
def test_malformed_operations_raise_api_errors_only(document: dict[str, Any], operations: list[Any]) -> None:
    try:
        json_patch(document, operations)
    except ApiError as error:
        assert error.status_code in (400, 413, 422)
