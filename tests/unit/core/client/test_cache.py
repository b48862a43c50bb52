from __future__ import annotations

import pytest

from core.api.views import Metadata, Pod, PodSpec
from core.client.cache import Cache


def pod(name: str, node: str = "", version: str = "1", uid: str = "u") -> Pod:
    return Pod(metadata=Metadata(name=name, resource_version=version, uid=uid), spec=PodSpec(node_name=node))


def names(pods: list[Pod]) -> list[str]:
    return [each.name for each in pods]


def test_indexes_follow_what_comes_changes_and_goes() -> None:
    cache: Cache[Pod] = Cache()
    cache.set("a", pod("a", "n1"))
    cache.add_index("node", lambda each: [each.spec.node_name] if each.spec.node_name else [])
    cache.add_index("letters", lambda each: list(each.name))
    cache.set("b", pod("b", "n1"))
    cache.set("c", pod("c"))
    assert names(cache.by_index("node", "n1")) == ["a", "b"]
    assert names(cache.by_index("letters", "c")) == ["c"]
    assert cache.by_index("node", "") == []
    old = cache.set("a", pod("a", "n2", "2"))
    assert old is not None and old.spec.node_name == "n1"
    assert names(cache.by_index("node", "n1")) == ["b"]
    assert names(cache.by_index("node", "n2")) == ["a"]
    assert cache.pop("b") is not None
    assert cache.pop("b") is None
    assert cache.by_index("node", "n1") == []
    assert cache._indexes["node"].keys() == {"n2"}, "an index keeps no empty terms"
    with pytest.raises(ValueError, match="already"):
        cache.add_index("node", lambda each: [])
    with pytest.raises(KeyError):
        cache.by_index("none", "x")


def test_the_new_object_is_what_an_index_yields() -> None:
    cache: Cache[Pod] = Cache()
    cache.add_index("node", lambda each: [each.spec.node_name])
    cache.set("a", pod("a", "n1"))
    cache.set("a", pod("a", "n1", "2"))
    assert [each.metadata.resource_version for each in cache.by_index("node", "n1")] == ["2"]


def test_replacing_tells_the_differences_deletions_first() -> None:
    cache: Cache[Pod] = Cache()
    cache.add_index("node", lambda each: [each.spec.node_name])
    for name in ("same", "changed", "gone", "reborn"):
        cache.set(name, pod(name, "n1"))
    changes = cache.replace({
        "new": pod("new", "n2"),
        "same": pod("same", "n1"),
        "changed": pod("changed", "n2", "2"),
        "reborn": pod("reborn", "n1", "1", "another"),
    })  # fmt: skip
    told = [(old and old.name, new and new.name) for old, new in changes]
    assert told == [("gone", None), (None, "new"), ("changed", "changed"), ("reborn", "reborn")]
    assert names(cache.by_index("node", "n1")) == ["same", "reborn"]
    assert sorted(names(cache.by_index("node", "n2"))) == ["changed", "new"]


def test_an_index_may_be_shared() -> None:
    cache: Cache[Pod] = Cache()

    def by_node(each: Pod) -> list[str]:
        return [each.spec.node_name]

    cache.add_index("node", by_node)
    cache.add_index("node", by_node)
    with pytest.raises(ValueError, match="already"):
        cache.add_index("node", lambda each: [])
