"""The Store protocol: what etcd gives Kubernetes, in the few calls that the API server makes.

**Order.** Every write gets the next revision of one global counter. `watch` yields events in that order, without gaps.

**Durability.** A write is *applied* (visible to `get`, `list` and to watches of applied events) before it is *durable*.
With `durable=True` a write call returns once its revision is durable; with `durable=False` once it is applied. Both kinds
go into one log in one order, so a crash loses a tail of the log and never leaves a hole. A store over a network may make
every write durable before it returns.

A *soft* write says what its writer will find out and write again: watches are told of it before it is durable, in the order of
the log, so once all before it is durable or soft as well. Whoever saw it can lose it to a crash, but nothing that is durable
then follows from it: that would be later in the log.

**After a crash** the revision starts above every revision that was ever handed out, durable or not; a watch or a
continue token from a revision that was lost raises `Compacted`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from core.errors import FaasliteError

__all__ = [
    "Compacted", "Entry", "Event", "FutureRevision", "KeyExists", "Page", "RevisionMismatch", "Store", "StoreClosed",
    "StoreError", "StoreUnavailable", "Watch",
]  # fmt: skip


class StoreError(FaasliteError):
    """The root of what a store raises."""


class KeyExists(StoreError):
    """`create` of a key that has a value."""


class RevisionMismatch(StoreError):
    """`update` or `delete` expected another revision; `current` is the entry as it stands, None where there is none."""

    def __init__(self, key: str, expected: int, current: Entry | None) -> None:
        super().__init__(f"{key}: expected revision {expected}, found {current.revision if current else 'nothing'}")
        self.current = current


class Compacted(StoreError):
    """The revision asked for is older than the log, or was lost in a crash; read again from the present."""


class FutureRevision(StoreError):
    """The revision asked for has not been reached; `current` is the store's."""

    def __init__(self, asked: int, current: int) -> None:
        super().__init__(f"revision {asked} is in the future, the store is at {current}")
        self.current = current


class StoreUnavailable(StoreError):
    """The store can't take the call now (disk full, connection lost); it may be tried again."""


class StoreClosed(StoreError):
    """The store was closed."""


class Entry(NamedTuple):
    """A value and the revision of its last write. `created` is the revision of its first."""

    key: str
    value: bytes
    revision: int
    created: int


class Event(NamedTuple):
    """One write. `value` is None for a deletion; `previous` is the entry before it, None for a creation."""

    key: str
    value: bytes | None
    revision: int
    previous: Entry | None


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a listing, in the order of keys.

    `revision` is the one the listing was made at, `more` whether keys follow the last entry, and `remaining` how many.
    """

    entries: list[Entry]
    revision: int
    more: bool = False
    remaining: int = 0


class Watch(Protocol):
    """Events of one prefix in order of revision, in batches (never empty).

    Ends with `Compacted` where the watcher fell so far behind that it was dropped, with `StoreClosed` where the store
    closed, with `StoreUnavailable` where it failed.
    """

    def __aiter__(self) -> AsyncIterator[list[Event]]: ...

    async def __anext__(self) -> list[Event]: ...

    def take(self) -> list[Event]:
        """What has come and was not read yet, without waiting: perhaps nothing. Raises what ends the watch once nothing is left."""

    def notify(self, wake: Callable[[], None]) -> None:
        """From now on call `wake`, on the event loop, when there is something to take, an end among it: a reader's way without a task."""

    async def aclose(self) -> None:
        """Stop; calling it twice is fine."""


class Store(Protocol):
    """Keys are text such as `/pods/default/a`; a prefix ends with `/`."""

    @property
    def revision(self) -> int:
        """The revision of the newest applied write."""

    async def get(self, key: str) -> Entry | None: ...

    async def list(self, prefix: str, *, limit: int = 0, after: str = "", revision: int = 0) -> Page:
        """Entries under `prefix` in the order of keys.

        `limit` 0 is all of them; `after` is the last key of the page before; `revision` pins the listing to a past
        state (0 is the present). Raises `Compacted`, `FutureRevision`.
        """

    async def create(self, key: str, value: bytes, *, durable: bool = True, soft: bool = False) -> Entry:
        """Raises `KeyExists`."""

    async def update(self, key: str, value: bytes, expected: int, *, durable: bool = True, soft: bool = False) -> Entry:
        """Replace the value whose revision is `expected`. Raises `RevisionMismatch`."""

    async def delete(self, key: str, expected: int, *, durable: bool = True) -> Entry:
        """Remove the value whose revision is `expected` and return what it was, with the deletion's revision. Raises `RevisionMismatch`."""

    def watch(self, prefix: str, since: int, *, applied: bool = False) -> Watch:
        """Events with revisions above `since`, durable ones and soft ones, unless `applied` asks for all as soon as they are applied.

        Raises `Compacted` (at once, or from the first step of the iteration), `FutureRevision`.
        """

    async def durable(self, revision: int) -> None:
        """Return once that revision is durable."""

    async def compact(self, revision: int) -> None:
        """Forget the log below `revision`; live values stay.

        A listing at `revision` and a watch from it still work, those from below it raise `Compacted`.
        """

    async def close(self) -> None:
        """Make everything applied durable and release what is held."""
