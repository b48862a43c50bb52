"""What an informer holds: objects by key, and indexes over them that are kept as objects come and go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Generic, TypeVar

from core.api.views import ObjectView

__all__ = ["Cache"]

V = TypeVar("V", bound=ObjectView)


class Cache(Generic[V]):
    """Objects by `namespace/name`. An index maps each value that its function gives for an object to the keys that gave it."""

    def __init__(self) -> None:
        self.objects: dict[str, V] = {}
        self._functions: dict[str, Callable[[V], Iterable[str]]] = {}
        # dict as an ordered set: what an index yields comes in the order in which objects arrived.
        self._indexes: dict[str, dict[str, dict[str, None]]] = {}

    def add_index(self, name: str, function: Callable[[V], Iterable[str]]) -> None:
        """Index the objects of now and later. Those who share a cache may share an index: the same function under the same name
        is there already. ValueError where the name is taken by another.
        """
        if self._functions.get(name) is function:
            return
        if name in self._functions:
            raise ValueError(f"there is an index {name!r} already")
        self._functions[name] = function
        index: dict[str, dict[str, None]] = {}
        self._indexes[name] = index
        for key, value in self.objects.items():
            for term in function(value):
                index.setdefault(term, {})[key] = None

    def by_index(self, name: str, term: str) -> list[V]:
        keys = self._indexes[name].get(term)
        return [self.objects[key] for key in keys] if keys else []

    def set(self, key: str, value: V) -> V | None:
        """Put it in and return what it replaced."""
        old = self.objects.get(key)
        self.objects[key] = value
        for name, function in self._functions.items():
            index = self._indexes[name]
            before, after = (list(function(old)) if old is not None else []), list(function(value))
            if before != after:
                self._forget(index, before, key)
                for term in after:
                    index.setdefault(term, {})[key] = None
        return old

    def pop(self, key: str) -> V | None:
        old = self.objects.pop(key, None)
        if old is not None:
            for name, function in self._functions.items():
                self._forget(self._indexes[name], function(old), key)
        return old

    def replace(self, objects: Mapping[str, V]) -> list[tuple[V | None, V | None]]:
        """Become `objects` at once; the differences as (old, new), deletions first."""
        changes: list[tuple[V | None, V | None]] = [
            (self.pop(key), None) for key in [key for key in self.objects if key not in objects]
        ]
        for key, value in objects.items():
            old = self.objects.get(key)
            if old is None or _changed(old, value):
                self.set(key, value)
                changes.append((old, value))
        return changes

    @staticmethod
    def _forget(index: dict[str, dict[str, None]], terms: Iterable[str], key: str) -> None:
        for term in terms:
            keys = index.get(term)
            if keys is not None:
                keys.pop(key, None)
                if not keys:
                    del index[term]


def _changed(old: ObjectView, new: ObjectView) -> bool:
    return old.metadata.resource_version != new.metadata.resource_version or old.metadata.uid != new.metadata.uid
