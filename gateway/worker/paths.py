"""Custom routes: host and path prefix to a function, the longest prefix first, the oldest function where two want the same.

Nobody gets between another team and its callers with a longer prefix: a host is the namespace's that has had a route there for longest, and
without a host so is whatever lies below a prefix.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from gateway.worker.views import HttpRoute

__all__ = ["Paths"]


class _Entry(NamedTuple):
    """Sorted by these, in this order."""

    shortness: int
    created: str
    key: bytes
    prefix: bytes
    methods: frozenset[bytes]

    def takes(self, path: bytes, method: bytes) -> bool:
        prefix = self.prefix
        if not path.startswith(prefix) or (self.methods and method not in self.methods):
            return False
        return _below(path, prefix)

    @property
    def namespace(self) -> bytes:
        return self.key.partition(b".")[2]


def _below(path: bytes, prefix: bytes) -> bool:
    """Whether the path, which begins with the prefix, ends there or goes on with a segment of its own."""
    return len(path) == len(prefix) or prefix[-1:] == b"/" or path[len(prefix) : len(prefix) + 1] == b"/"


def _lawful(host: bytes, entries: list[_Entry]) -> list[_Entry]:
    """Those entries that no older one of another namespace stands before."""
    if len({each.namespace for each in entries}) < 2:
        return entries
    ages = sorted(entries, key=lambda each: (each.created, each.key))
    if host:
        return [each for each in entries if each.namespace == ages[0].namespace]
    found = []
    for number, each in enumerate(ages):
        older = (other for other in ages[:number] if other.namespace != each.namespace)
        if not any(each.prefix.startswith(other.prefix) and _below(each.prefix, other.prefix) for other in older):
            found.append(each)
    return sorted(found, key=lambda each: each[:4])


class Paths:
    """A prefix ends at the end of a segment: `/thumb` takes `/thumb` and `/thumb/a`, not `/thumbs`. HEAD goes where GET does, OPTIONS
    anywhere (it asks what there is)."""

    def __init__(self) -> None:
        self._hosts: dict[bytes, list[_Entry]] = {}
        self._lawful: dict[bytes, list[_Entry]] = {}
        self._of: dict[bytes, set[bytes]] = {}

    def put(self, key: bytes, created: str, routes: Iterable[HttpRoute]) -> None:
        """These are the routes of the function `key` now; `created` is its time, as text that sorts."""
        self.remove(key)
        for route in routes:
            methods = {each.encode() for each in route.methods}
            if methods:
                methods |= {b"OPTIONS"} | ({b"HEAD"} if b"GET" in methods else set())
            prefix = route.path.encode()
            host = route.host.lower().encode()
            entries = self._hosts.setdefault(host, [])
            entries.append(_Entry(-len(prefix), created, key, prefix, frozenset(methods)))
            entries.sort(key=lambda each: each[:4])
            self._of.setdefault(key, set()).add(host)
        for host in self._of.get(key, ()):
            self._lawful[host] = _lawful(host, self._hosts[host])

    def remove(self, key: bytes) -> None:
        for host in self._of.pop(key, ()):
            left = [each for each in self._hosts[host] if each.key != key]
            if left:
                self._hosts[host] = left
                self._lawful[host] = _lawful(host, left)
            else:
                del self._hosts[host]
                self._lawful.pop(host, None)

    def find(self, host: bytes, path: bytes, method: bytes) -> bytes | None:
        """The function's key. `host` is in lower case, without a port; "" are the routes without a host."""
        for entry in self._lawful.get(host, ()):
            if entry.takes(path, method):
                return entry.key
        return None
