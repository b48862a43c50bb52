"""The state that embedded stores share: live entries, the log of late events, the revision.

Everything here is a plain call on the event loop's thread. That is what makes a compare-and-swap atomic and gives every
write its revision in the order in which the writes were made.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter

from core.store.base import Compacted, Entry, Event, FutureRevision, KeyExists, Page, RevisionMismatch
from core.store.keys import SortedKeys, prefix_end

__all__ = ["FIRST_REVISION", "State"]

FIRST_REVISION = 1
"""The revision of a store without writes: 0 means "any" to Kubernetes clients, so no listing may be made at it."""

_revision = attrgetter("revision")


class State:
    """Live entries under sorted keys, and the log of events with revisions above `floor`.

    The log keeps at most about `events` events and `size` bytes of values; older ones are forgotten and `floor` rises.
    Revisions in the log ascend, but needn't be contiguous: a crash leaves out those that were lost. `on_write` is called
    with each event as it is applied.
    """

    def __init__(
        self,
        on_write: Callable[[Event], None],
        *,
        revision: int = FIRST_REVISION,
        floor: int = 0,
        entries: Iterable[Entry] = (),
        log: Iterable[Event] = (),
        events: int = 50_000,
        size: int = 32 << 20,
    ) -> None:
        self.revision = revision
        self.floor = floor
        self._on_write = on_write
        self._entries = {entry.key: entry for entry in entries}
        self._keys = SortedKeys(self._entries)
        self._log = list(log)
        self._size = sum(map(_size, self._log))
        self._max_events, self._max_size = events, size

    def get(self, key: str) -> Entry | None:
        return self._entries.get(key)

    def create(self, key: str, value: bytes) -> Entry:
        if key in self._entries:
            raise KeyExists(key)
        revision = self.revision + 1
        entry = Entry(key, value, revision, revision)
        self._keys.add(key)
        self._entries[key] = entry
        self._record(Event(key, value, revision, None))
        return entry

    def update(self, key: str, value: bytes, expected: int) -> Entry:
        old = self._expect(key, expected)
        entry = Entry(key, value, self.revision + 1, old.created)
        self._entries[key] = entry
        self._record(Event(key, value, entry.revision, old))
        return entry

    def delete(self, key: str, expected: int) -> Entry:
        old = self._expect(key, expected)
        del self._entries[key]
        self._keys.remove(key)
        revision = self.revision + 1
        self._record(Event(key, None, revision, old))
        return Entry(key, old.value, revision, old.created)

    def list(self, prefix: str, limit: int, after: str, revision: int) -> Page:
        """As `Store.list` has it."""
        end = prefix_end(prefix)
        undone = self._undone(prefix, revision) if revision else None
        start = max(prefix, after)
        if not undone:
            keys, remaining = self._keys.between(start, end, limit)
            entries = self._entries
            return Page([entries[key] for key in keys], revision or self.revision, remaining > 0, remaining)
        return self._list_past(undone, start, end, limit, revision)

    def since(self, revision: int, upto: int) -> Sequence[Event]:
        """Events with revisions above `revision`, up to `upto`. Raises `Compacted`, `FutureRevision`."""
        start = self._position(revision)
        stop = len(self._log) if upto >= self.revision else bisect_right(self._log, upto, key=_revision)
        return self._log[start:stop]

    def compact(self, revision: int) -> None:
        """Forget the log up to `revision`: what happened after it can still be told, what was before it can't."""
        if revision > self.revision:
            raise FutureRevision(revision, self.revision)
        if revision > self.floor:
            self._trim(bisect_right(self._log, revision, key=_revision), revision)

    def _expect(self, key: str, expected: int) -> Entry:
        entry = self._entries.get(key)
        if entry is None or entry.revision != expected:
            raise RevisionMismatch(key, expected, entry)
        return entry

    def _record(self, event: Event) -> None:
        self.revision = event.revision
        self._log.append(event)
        self._size += _size(event)
        if len(self._log) > self._max_events or self._size > self._max_size:
            # A quarter at once: shortening a list from its front moves all the rest.
            count = len(self._log) // 4 + 1
            self._trim(count, self._log[count - 1].revision)
        self._on_write(event)

    def _trim(self, count: int, floor: int) -> None:
        self._size -= sum(map(_size, self._log[:count]))
        del self._log[:count]
        self.floor = floor

    def _position(self, revision: int) -> int:
        """The place in the log of the first event after `revision`, which must be one that this store stood at."""
        if revision > self.revision:
            raise FutureRevision(revision, self.revision)
        if revision < self.floor:
            raise Compacted(f"revision {revision} was compacted, the log begins at {self.floor}")
        log = self._log
        at = bisect_right(log, revision, key=_revision)
        stood = (
            revision in (self.floor, self.revision)
            or (at > 0 and log[at - 1].revision == revision)
            or (at < len(log) and log[at].revision == revision + 1)
        )
        if not stood:
            raise Compacted(f"revision {revision} was lost in a crash")
        return at

    def _undone(self, prefix: str, revision: int) -> dict[str, Entry | None]:
        """What stood at `revision` under the keys that changed since."""
        undone: dict[str, Entry | None] = {}
        for event in self._log[self._position(revision) :]:
            if event.key not in undone and event.key.startswith(prefix):
                undone[event.key] = event.previous
        return undone

    def _list_past(self, undone: dict[str, Entry | None], start: str, end: str, limit: int, revision: int) -> Page:
        # Of the keys of now, at most len(undone) weren't there then, so this many are sure to fill the page.
        present, beyond = self._keys.between(start, end, limit + len(undone) + 1 if limit else 0)
        kept = [key for key in present if undone.get(key, key) is not None]
        gone = [key for key, entry in undone.items() if entry is not None and key > start and key not in self._entries]
        if beyond:
            # Past the last present key looked at, the order of present and gone keys isn't known, nor needed.
            last = present[-1]
            inside = [key for key in gone if key <= last]
            later = [key for key in undone if key > last]
            beyond += sum((undone[key] is not None) - (key in self._entries) for key in later)
            gone = inside
        keys = sorted(kept + gone) if gone else kept
        page = keys[:limit] if limit else keys
        remaining = len(keys) - len(page) + beyond
        found = [undone.get(key) or self._entries[key] for key in page]
        return Page(found, revision, remaining > 0, remaining)


def _size(event: Event) -> int:
    return len(event.value) if event.value is not None else 0
