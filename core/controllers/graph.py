"""Who owns whom: the garbage collector's graph and its decisions, without I/O.

Objects are known by uid. An owner that the graph hasn't seen is *unknown*; only a look at the API can call it absent.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field

from core.api.kinds import Kind
from core.api.views import ObjectView, OwnerReference

__all__ = ["FOREGROUND", "ORPHAN", "Action", "Graph", "Item", "Owner", "decide"]

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


@dataclass(frozen=True, slots=True)
class Item:
    """An object, by what the collector needs of it."""

    kind: Kind
    namespace: str
    name: str
    uid: str
    version: str
    deleting: bool
    finalizers: tuple[str, ...]
    owners: tuple[OwnerReference, ...]

    @classmethod
    def of(cls, kind: Kind, view: ObjectView) -> Item:
        meta = view.metadata
        return cls(
            kind,
            meta.namespace,
            meta.name,
            meta.uid,
            meta.resource_version,
            meta.deletion_timestamp is not None,
            tuple(meta.finalizers),
            tuple(meta.owner_references),
        )

    @property
    def foreground(self) -> bool:
        """Whether it waits for its dependents to go first."""
        return self.deleting and FOREGROUND in self.finalizers

    @property
    def orphaning(self) -> bool:
        return self.deleting and ORPHAN in self.finalizers


class Graph:
    """Objects by uid, and the uids of those that name each as an owner."""

    def __init__(self) -> None:
        self._items: dict[str, Item] = {}
        self._dependents: dict[str, dict[str, None]] = {}

    def __len__(self) -> int:
        return len(self._items)

    def get(self, uid: str) -> Item | None:
        return self._items.get(uid)

    def dependents(self, uid: str) -> list[Item]:
        return [self._items[each] for each in self._dependents.get(uid, ())]

    def has_dependents(self, uid: str) -> bool:
        return bool(self._dependents.get(uid))

    def set(self, item: Item) -> Item | None:
        """Returns what it replaces."""
        old = self._items.get(item.uid)
        if old is None or old.owners != item.owners:
            if old is not None:
                self._unlink(old)
            for owner in item.owners:
                self._dependents.setdefault(owner.uid, {})[item.uid] = None
        self._items[item.uid] = item
        return old

    def remove(self, uid: str) -> Item | None:
        old = self._items.pop(uid, None)
        if old is not None:
            self._unlink(old)
        return old

    def _unlink(self, item: Item) -> None:
        for owner in item.owners:
            found = self._dependents.get(owner.uid)
            if found is not None:
                found.pop(item.uid, None)
                if not found:
                    del self._dependents[owner.uid]


class Owner(enum.Enum):
    """What is known of one owner."""

    PRESENT = "present"
    WAITING = "waiting"
    """It is being deleted in the foreground, and this object holds it up."""
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Action:
    """What to do with an object: delete it with a propagation policy, or take owner references off it. Neither: leave it. `unblock`: before it is
    deleted, it no longer holds up its owners.
    """

    delete: str = ""
    unblock: bool = False
    drop_owners: frozenset[str] = field(default_factory=frozenset)


def decide(
    item: Item, states: Iterable[tuple[OwnerReference, Owner]], has_dependents: bool, in_circle: bool = False
) -> Action:
    """What its owners' states mean for an object, after k8s.io/kubernetes garbagecollector `attemptToDeleteItem`.

    `in_circle`: one of its dependents waits to go itself, perhaps for this object; each of a circle would wait for the next for ever.
    """
    found = list(states)
    if not found or item.deleting:
        return Action()
    gone = frozenset(reference.uid for reference, state in found if state is not Owner.PRESENT)
    if len(gone) < len({reference.uid for reference, _ in found}):
        return Action(drop_owners=gone)
    if any(state is Owner.WAITING for _, state in found) and has_dependents:
        return Action(delete="Foreground", unblock=in_circle)
    if ORPHAN in item.finalizers:
        return Action(delete="Orphan")
    if FOREGROUND in item.finalizers:
        return Action(delete="Foreground")
    return Action(delete="Background")
