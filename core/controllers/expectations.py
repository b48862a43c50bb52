"""Expectations: what a controller has asked for and not yet seen in its cache.

An informer lags a hop behind the API, so a controller that counts objects in its cache right after creating some would create
them again. It waits until the cache has shown what it asked for, or until that is so long ago that it must have missed it.
After k8s.io/kubernetes/pkg/controller/controller_utils.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from core.api.kinds import Kind
from core.api.views import ObjectView

__all__ = ["TIMEOUT", "Expectations"]

TIMEOUT = 300.0
"""Seconds after which an expectation is given up."""


@dataclass(slots=True)
class _Expected:
    since: float
    creations: int = 0
    deletions: set[str] = field(default_factory=set)


class Expectations:
    """By key of the controlling object. `now` is in seconds, of any clock that only goes forward."""

    def __init__(self) -> None:
        self._expected: dict[str, _Expected] = {}

    def expect(self, key: str, now: float, *, creations: int = 0, deletions: Iterable[str] = ()) -> None:
        """Before the requests are sent: this many creations, the deletion of these uids."""
        found = self._expected.get(key)
        if found is None:
            found = self._expected[key] = _Expected(now)
        found.since = now
        found.creations += creations
        found.deletions.update(deletions)

    def created(self, key: str, count: int = 1) -> None:
        """Creations were seen, or failed."""
        found = self._expected.get(key)
        if found is not None:
            found.creations = max(found.creations - count, 0)

    def deleted(self, key: str, uid: str) -> bool:
        """A deletion was seen, or failed; whether it was expected."""
        found = self._expected.get(key)
        if found is None or uid not in found.deletions:
            return False
        found.deletions.discard(uid)
        return True

    def observe(self, kind: Kind, old: ObjectView | None, new: ObjectView | None) -> Iterator[str]:
        """Take in an informer's event; yields the keys of the objects of `kind` that control what it is about."""
        for each in (old, new):
            controller = each.metadata.controller if each is not None else None
            if each is None or controller is None or controller.kind != kind.kind:
                continue
            key = f"{each.namespace}/{controller.name}"
            if old is None:
                self.created(key)
            if new is None or new.metadata.deletion_timestamp is not None:
                self.deleted(key, each.metadata.uid)
            yield key

    def satisfied(self, key: str, now: float) -> bool:
        """Whether the cache can be trusted to show what was asked for."""
        found = self._expected.get(key)
        if found is None:
            return True
        if (not found.creations and not found.deletions) or now - found.since > TIMEOUT:
            del self._expected[key]
            return True
        return False

    def forget(self, key: str) -> None:
        self._expected.pop(key, None)
