"""A store whose values under some prefixes are encrypted at rest: in its files, its log and its memory.

It stands before another store and leaves everything but the bytes of values to it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

from core.keyring import KeyRing, KeyRingError
from core.store.base import Entry, Event, Page, RevisionMismatch, Store, StoreError, Watch

__all__ = ["EncryptedStore"]


class Undecipherable(StoreError, KeyRingError):
    """A value can't be decrypted."""


class EncryptedStore:
    """`prefixes` end with `/`, as all prefixes do. A value that was written before there was a key is read as it is."""

    def __init__(self, store: Store, ring: KeyRing, prefixes: Sequence[str]) -> None:
        self._store = store
        self._ring = ring
        self._prefixes = tuple(prefixes)

    @property
    def revision(self) -> int:
        return self._store.revision

    async def get(self, key: str) -> Entry | None:
        entry = await self._store.get(key)
        return self._opened(entry) if entry else None

    async def list(self, prefix: str, *, limit: int = 0, after: str = "", revision: int = 0) -> Page:
        page = await self._store.list(prefix, limit=limit, after=after, revision=revision)
        if not self._concerns(prefix):
            return page
        return replace(page, entries=[self._opened(each) for each in page.entries])

    async def create(self, key: str, value: bytes, *, durable: bool = True, soft: bool = False) -> Entry:
        if not self._secret(key):
            return await self._store.create(key, value, durable=durable, soft=soft)
        sealed = self._ring.seal(value, key)
        return (await self._store.create(key, sealed, durable=durable, soft=soft))._replace(value=value)

    async def update(self, key: str, value: bytes, expected: int, *, durable: bool = True, soft: bool = False) -> Entry:
        if not self._secret(key):
            return await self._store.update(key, value, expected, durable=durable, soft=soft)
        try:
            sealed = self._ring.seal(value, key)
            return (await self._store.update(key, sealed, expected, durable=durable, soft=soft))._replace(value=value)
        except RevisionMismatch as error:
            raise self._opened_mismatch(key, expected, error) from error

    async def delete(self, key: str, expected: int, *, durable: bool = True) -> Entry:
        try:
            return self._opened(await self._store.delete(key, expected, durable=durable))
        except RevisionMismatch as error:
            raise self._opened_mismatch(key, expected, error) from error

    def watch(self, prefix: str, since: int, *, applied: bool = False) -> Watch:
        watch = self._store.watch(prefix, since, applied=applied)
        return _OpenedWatch(watch, self) if self._concerns(prefix) else watch

    async def durable(self, revision: int) -> None:
        await self._store.durable(revision)

    async def compact(self, revision: int) -> None:
        await self._store.compact(revision)

    async def close(self) -> None:
        await self._store.close()

    async def encrypt_all(self) -> int:
        """Write every value that isn't encrypted with the primary key again; how many there were.

        For the first start with a key, and after a rotation. A value that changes meanwhile is encrypted by that write.
        """
        count = 0
        for prefix in self._prefixes:
            for entry in (await self._store.list(prefix)).entries:
                if self._ring.current(entry.value):
                    continue
                try:
                    sealed = self._ring.seal(self._open(entry.value, entry.key), entry.key)
                    await self._store.update(entry.key, sealed, entry.revision)
                    count += 1
                except RevisionMismatch:
                    continue
        return count

    def use(self, ring: KeyRing) -> None:
        """Another ring from now on: after a rotation."""
        self._ring = ring

    def opened_event(self, event: Event) -> Event:
        previous = self._opened(event.previous) if event.previous else None
        value = (
            self._open(event.value, event.key) if event.value is not None and self._secret(event.key) else event.value
        )
        return Event(event.key, value, event.revision, previous)

    def _secret(self, key: str) -> bool:
        return key.startswith(self._prefixes)

    def _concerns(self, prefix: str) -> bool:
        """Whether a listing or watch of the prefix may bring encrypted values."""
        return any(prefix.startswith(each) or each.startswith(prefix) for each in self._prefixes)

    def _open(self, value: bytes, key: str) -> bytes:
        try:
            return self._ring.open(value, key)
        except KeyRingError as error:
            raise Undecipherable(str(error)) from error

    def _opened(self, entry: Entry) -> Entry:
        return entry._replace(value=self._open(entry.value, entry.key)) if self._secret(entry.key) else entry

    def _opened_mismatch(self, key: str, expected: int, error: RevisionMismatch) -> RevisionMismatch:
        return RevisionMismatch(key, expected, self._opened(error.current) if error.current else None)


class _OpenedWatch:
    def __init__(self, watch: Watch, store: EncryptedStore) -> None:
        self._watch = watch
        self._store = store

    def __aiter__(self) -> AsyncIterator[list[Event]]:
        return self

    async def __anext__(self) -> list[Event]:
        return [self._store.opened_event(each) for each in await self._watch.__anext__()]

    def take(self) -> list[Event]:
        return [self._store.opened_event(each) for each in self._watch.take()]

    def notify(self, wake: Callable[[], None]) -> None:
        self._watch.notify(wake)

    async def aclose(self) -> None:
        await self._watch.aclose()
