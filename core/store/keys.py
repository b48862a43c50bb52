"""Keys in order: a sorted list in chunks, so that adding and removing stay cheap at hundreds of thousands of keys."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable

__all__ = ["SortedKeys", "prefix_end"]

_CHUNK = 1024


def prefix_end(prefix: str) -> str:
    """The least text that is greater than every text with that prefix (which ends with `/`)."""
    return prefix[:-1] + "0"  # "0" follows "/"


class SortedKeys:
    """A set of texts in ascending order. An add or a remove moves at most one chunk's worth of pointers."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        ordered = sorted(keys)
        self._chunks = [ordered[at : at + _CHUNK] for at in range(0, len(ordered), _CHUNK)] or [[]]
        self._last = [chunk[-1] if chunk else "" for chunk in self._chunks]

    def add(self, key: str) -> None:
        """Put in a key that isn't there."""
        at = min(bisect_left(self._last, key), len(self._chunks) - 1)
        chunk = self._chunks[at]
        insort(chunk, key)
        self._last[at] = chunk[-1]
        if len(chunk) > 2 * _CHUNK:
            half = chunk[_CHUNK:]
            del chunk[_CHUNK:]
            self._last[at] = chunk[-1]
            self._chunks.insert(at + 1, half)
            self._last.insert(at + 1, half[-1])

    def remove(self, key: str) -> None:
        """Take out a key that is there."""
        at = bisect_left(self._last, key)
        chunk = self._chunks[at]
        del chunk[bisect_left(chunk, key)]
        if chunk:
            self._last[at] = chunk[-1]
        elif len(self._chunks) > 1:
            del self._chunks[at], self._last[at]
        else:
            self._last[at] = ""

    def between(self, after: str, end: str, limit: int = 0) -> tuple[list[str], int]:
        """At most `limit` (0: all) keys above `after` and below `end`, and how many follow them."""
        first = bisect_left(self._last, after)
        if first == len(self._chunks):
            return [], 0
        found: list[str] = []
        remaining = 0
        for at in range(first, len(self._chunks)):
            chunk = self._chunks[at]
            start = bisect_right(chunk, after) if at == first else 0
            stop = len(chunk) if self._last[at] < end else bisect_left(chunk, end)
            if stop > start:
                take = min(stop, start + limit - len(found)) if limit else stop
                found += chunk[start:take]
                remaining += stop - take
            if stop < len(chunk):
                break
        return found, remaining
