"""What owners' states mean for an object, and the graph that knows them."""

from __future__ import annotations

import pytest

from core.api.kinds import POD, REPLICA_SET
from core.api.views import OwnerReference
from core.controllers.graph import FOREGROUND, ORPHAN, Action, Graph, Item, Owner, decide

PRESENT, WAITING, ABSENT = Owner.PRESENT, Owner.WAITING, Owner.ABSENT


def item(uid: str, *owners: str, finalizers: tuple[str, ...] = (), deleting: bool = False) -> Item:
    references = tuple(
        OwnerReference(kind="ReplicaSet", name=each, uid=each, block_owner_deletion=True) for each in owners
    )
    return Item(POD, "default", uid, uid, "1", deleting, finalizers, references)


@pytest.mark.parametrize(
    ("states", "finalizers", "dependents", "expected"),
    [
        ([], (), False, Action()),
        ([PRESENT], (), False, Action()),
        ([ABSENT], (), False, Action(delete="Background")),
        ([ABSENT], (FOREGROUND,), False, Action(delete="Foreground")),
        ([ABSENT], (ORPHAN,), True, Action(delete="Orphan")),
        ([ABSENT, ABSENT], (), False, Action(delete="Background")),
        ([PRESENT, ABSENT], (), False, Action(drop_owners=frozenset({"o1"}))),
        ([PRESENT, WAITING], (), False, Action(drop_owners=frozenset({"o1"}))),
        ([WAITING], (), False, Action(delete="Background")),
        ([WAITING], (), True, Action(delete="Foreground")),
        ([ABSENT, WAITING], (), True, Action(delete="Foreground")),
    ],
)
def test_decisions(states: list[Owner], finalizers: tuple[str, ...], dependents: bool, expected: Action) -> None:
    found = item("x", *(f"o{number}" for number in range(len(states))), finalizers=finalizers)
    assert decide(found, zip(found.owners, states, strict=True), dependents) == expected


def test_one_of_a_circle_no_longer_holds_up_its_owners() -> None:
    found = item("x", "o")
    waiting = [(found.owners[0], WAITING)]
    assert decide(found, waiting, True, in_circle=True) == Action(delete="Foreground", unblock=True)
    assert decide(found, [(found.owners[0], ABSENT)], True, in_circle=True) == Action(delete="Background")


def test_what_is_being_deleted_is_left_alone() -> None:
    found = item("x", "o", deleting=True)
    assert decide(found, [(found.owners[0], ABSENT)], False) == Action()


def test_the_graph_knows_dependents_before_their_owner() -> None:
    graph = Graph()
    graph.set(item("a", "rs"))
    graph.set(item("b", "rs", "other"))
    assert [each.uid for each in graph.dependents("rs")] == ["a", "b"]
    graph.set(Item(REPLICA_SET, "default", "rs", "rs", "1", False, (), ()))
    graph.remove("rs")
    assert [each.uid for each in graph.dependents("rs")] == ["a", "b"]


def test_the_graph_follows_changes_of_owners() -> None:
    graph = Graph()
    graph.set(item("a", "rs"))
    graph.set(item("a", "other"))
    assert not graph.has_dependents("rs")
    assert graph.has_dependents("other")
    graph.remove("a")
    assert not graph.has_dependents("other")
    assert len(graph) == 0
    assert graph.remove("a") is None


def test_finalizers_count_only_while_deleting() -> None:
    assert not item("a", finalizers=(FOREGROUND,)).foreground
    assert item("a", finalizers=(FOREGROUND,), deleting=True).foreground
    assert item("a", finalizers=(ORPHAN,), deleting=True).orphaning
