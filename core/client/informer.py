"""Informers: a cache of one kind that a LIST fills and a WATCH keeps, and handlers that hear of every change.

Order: for each object handlers hear its states in the order of the server, some perhaps folded into one by a relist.
The cache holds the new state before the first handler runs. An event goes from the transport to the handlers in one
step of the event loop: there is no queue and no task in between.

A watch that the server ends is taken up from the last version seen. After a broken connection, or where that version
has expired, everything is listed anew and the differences, deletions among them, are delivered as changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import msgspec

from core.api.kinds import Kind
from core.api.views import ObjectView
from core.client.backoff import Backoff
from core.client.cache import Cache
from core.client.rest import Client, decoder
from core.client.transport import RawEvent
from core.clock import monotonic
from core.errors import ApiError, Expired, ServiceUnavailable

__all__ = ["Handler", "Informer", "Informers"]

log = logging.getLogger(__name__)

V = TypeVar("V", bound=ObjectView)
Handler = Callable[[V | None, V | None], None]

_WATCH_SECONDS = (300, 600)
_STEADY_SECONDS = 1.0


class _Bookmark(msgspec.Struct):
    metadata: dict[str, Any]


_decode_bookmark = msgspec.json.Decoder(_Bookmark).decode


class Informer(Generic[V]):
    """The objects of one kind (and namespace, and selectors) as they stand, decoded as `view`.

    Made by `Informers.watch`. An object that the view can't decode is logged and treated as absent.
    """

    def __init__(self, client: Client, kind: Kind, view: type[V], namespace: str, labels: str, fields: str) -> None:
        self.kind, self.namespace, self.labels, self.fields = kind, namespace, labels, fields
        self.version = ""
        self._client = client
        self._decode = decoder(view).decode
        self._cache: Cache[V] = Cache()
        self._handlers: list[Handler[V]] = []
        self._relisted: list[Callable[[], None]] = []
        self._synced = asyncio.Event()
        self._backoff = Backoff()

    def __repr__(self) -> str:
        terms = [self.kind.resource, self.namespace, self.labels, self.fields]
        return f"Informer({', '.join(each for each in terms if each)})"

    def __len__(self) -> int:
        return len(self._cache.objects)

    @property
    def synced(self) -> bool:
        """Whether the first listing is in the cache and handlers have heard of it."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        await self._synced.wait()

    def add_handler(self, handler: Handler[V]) -> None:
        """Call `handler(old, new)` for every change: (None, new) created, (old, new) changed, (old, None) deleted.

        Objects that are in the cache already are told of at once, as created. It runs on the event loop and must not
        block; what it raises is logged.
        """
        self._handlers.append(handler)
        for value in list(self._cache.objects.values()):
            self._call(handler, None, value)

    def on_relist(self, handler: Callable[[], None]) -> None:
        """Call `handler()` after every listing but the first: the server may have lost what was written softly before."""
        self._relisted.append(handler)

    def add_index(self, name: str, function: Callable[[V], Iterable[str]]) -> None:
        """Keep an index: `by_index(name, term)` yields the objects for which `function` gave `term`."""
        self._cache.add_index(name, function)

    def get(self, key: str) -> V | None:
        """The object of that key: `namespace/name`, or `name` in kinds of the cluster."""
        return self._cache.objects.get(key)

    def values(self) -> list[V]:
        return list(self._cache.objects.values())

    def by_index(self, name: str, term: str) -> list[V]:
        """KeyError where there is no such index."""
        return self._cache.by_index(name, term)

    async def run(self) -> None:
        """List and watch until cancelled."""
        while True:
            try:
                await self.list_once()
                while True:
                    await self._watch_steadily()
            except Expired as error:
                log.info("%s: relisting: %s", self, error.message)
            except ServiceUnavailable as error:
                log.info("%s: relisting after a broken connection: %s", self, error.message)
            except ApiError as error:
                log.warning("%s: %s: %s", self, error.status_reason, error.message)
            except Exception:
                log.exception("%s: list or watch failed", self)
            await asyncio.sleep(self._backoff.next())

    async def list_once(self) -> None:
        """One LIST: the cache becomes what it says, handlers hear of the differences."""
        items, version = await self._client.list_raw(self.kind, self.namespace, labels=self.labels, fields=self.fields)
        objects: dict[str, V] = {}
        for item in items:
            value = self._decoded(item)
            if value is not None:
                objects[value.key] = value
        changes = self._cache.replace(objects)
        self.version = version
        for old, new in changes:
            self._notify(old, new)
        if self._synced.is_set():
            for handler in self._relisted:
                handler()
        self._synced.set()

    async def watch_once(self) -> None:
        """One WATCH from the version held, until the server ends it. Raises what the transport does."""
        # Spread, so that the informers of many processes don't all come back in the same second.
        seconds = random.randint(*_WATCH_SECONDS)  # noqa: S311 - not a secret
        events = self._client.watch(
            self.kind, self.namespace, version=self.version, labels=self.labels, fields=self.fields, seconds=seconds
        )
        async with contextlib.aclosing(events):
            async for batch in events:
                for event in batch:
                    self._apply(event)
                self._backoff.reset()

    async def _watch_steadily(self) -> None:
        """A watch that ends as soon as it began is a failure of sorts: wait before the next."""
        began, version = monotonic(), self.version
        await self.watch_once()
        if monotonic() - began < _STEADY_SECONDS and version == self.version:
            await asyncio.sleep(self._backoff.next())
        else:
            self._backoff.reset()

    def _apply(self, event: RawEvent) -> None:
        if event.type == "BOOKMARK":
            self.version = _decode_bookmark(event.object).metadata["resourceVersion"]
            return
        new = self._decoded(event.object)
        if new is None:
            return
        self.version = new.metadata.resource_version
        key = new.key
        if event.type == "DELETED":
            old = self._cache.pop(key)
            if old is not None:
                self._notify(old, None)
            return
        self._notify(self._cache.set(key, new), new)

    def _decoded(self, document: bytes | msgspec.Raw) -> V | None:
        try:
            value: V = self._decode(document)
            return value
        except msgspec.DecodeError as error:
            log.error("%s: skipped an object that can't be read: %s: %.200r", self, error, bytes(document))
            return None

    def _notify(self, old: V | None, new: V | None) -> None:
        for handler in self._handlers:
            self._call(handler, old, new)

    def _call(self, handler: Handler[V], old: V | None, new: V | None) -> None:
        try:
            handler(old, new)
        except Exception:
            known = new if new is not None else old
            log.exception("%s: a handler failed on %s", self, known.key if known is not None else None)


class Informers:
    """The informers of one process: each distinct (kind, view, namespace, labels, fields) is listed and watched once."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._informers: dict[tuple[Any, ...], Informer[Any]] = {}
        self._tasks: dict[Informer[Any], asyncio.Task[None]] = {}
        self._started = False

    def watch(
        self, kind: Kind, view: type[V], *, namespace: str = "", labels: str = "", fields: str = ""
    ) -> Informer[V]:
        """The informer of these arguments, made where there is none; it runs from `start` on, or at once after it."""
        identity = (kind, view, namespace, labels, fields)
        found: Informer[V] | None = self._informers.get(identity)
        if found is None:
            found = Informer(self._client, kind, view, namespace, labels, fields)
            self._informers[identity] = found
            if self._started:
                self._spawn(found)
        return found

    async def start(self) -> None:
        """Begin to list and watch; doesn't wait for the server (see `wait_synced`)."""
        self._started = True
        for informer in self._informers.values():
            if informer not in self._tasks:
                self._spawn(informer)

    async def wait_synced(self) -> None:
        """Return once every informer of now has its first listing."""
        for informer in list(self._informers.values()):
            await informer.wait_synced()

    async def forget(self, informer: Informer[Any]) -> None:
        """Stop one informer for all who share it: its kind is gone."""
        self._informers = {each: found for each, found in self._informers.items() if found is not informer}
        task = self._tasks.pop(informer, None)
        if task is not None:
            await _ended([task])

    async def stop(self) -> None:
        self._started = False
        tasks = list(self._tasks.values())
        self._tasks.clear()
        await _ended(tasks)

    def _spawn(self, informer: Informer[Any]) -> None:
        self._tasks[informer] = asyncio.get_running_loop().create_task(informer.run(), name=repr(informer))


async def _ended(tasks: Iterable[asyncio.Task[None]]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
