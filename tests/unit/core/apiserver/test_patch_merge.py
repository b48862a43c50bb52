import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.apiserver.patch_merge import clone, merge_given, merge_patch

KEYS = st.sampled_from("abc")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.text("xy", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("target", "patch", "expected"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}), ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}), ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}), ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}), (["a", "b"], ["c", "d"], ["c", "d"]), ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None), ({"e": None}, {"a": 1}, {"e": None, "a": 1}), ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)  # fmt: skip
def test_the_examples_of_rfc_7396(target: Any, patch: Any, expected: Any) -> None:
    assert merge_patch(target, patch) == expected


def reference(target: Any, patch: Any) -> Any:
    """Paths that the patch sets, one by one."""
    if not isinstance(patch, dict):
        return patch
    result = copy.deepcopy(target) if isinstance(target, dict) else {}
    for name in patch:
        if patch[name] is None:
            result.pop(name, None)
        else:
            result[name] = reference(result.get(name), patch[name])
    return result


@settings(max_examples=200, deadline=None)
@given(VALUES, VALUES)
def test_it_is_the_rfc_and_changes_nothing(target: Any, patch: Any) -> None:
    before = copy.deepcopy((target, patch))
    found = merge_patch(target, patch)
    assert found == reference(target, patch)
    assert merge_patch(found, patch) == found
    assert (target, patch) == before


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=3), st.dictionaries(KEYS, VALUES, max_size=3))
def test_a_target_that_is_given_away_is_merged_alike(target: dict[str, Any], patch: dict[str, Any]) -> None:
    before = copy.deepcopy((target, patch))
    found = merge_given(target, patch)
    assert list(found.items()) == list(merge_patch(target, patch).items())
    assert (target, patch) == before
    for key, each in target.items():
        if key not in patch:
            assert found[key] is each
        elif isinstance(each, dict | list) and key in found:
            assert found[key] is not each, "what was changed can be told from what wasn't"


@given(VALUES)
def test_a_clone_is_equal_and_shares_no_container(value: Any) -> None:
    def containers(each: Any) -> list[Any]:
        below = each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()
        return ([each] if isinstance(each, dict | list) else []) + [deep for item in below for deep in containers(item)]

    found = clone(value)
    assert found == value
    assert not {id(each) for each in containers(found)} & {id(each) for each in containers(value)}
