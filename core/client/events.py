"""Records v1 Events about objects, for people to read (`kubectl describe`), without ever holding up the caller.

Repeats of one event within ten minutes become one Event with a count, as in k8s.io/client-go/tools/record. Under
pressure, or while the API doesn't answer, events are dropped: nothing may depend on them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections import OrderedDict
from dataclasses import dataclass

from core.api.kinds import EVENT, Kind
from core.api.meta import Document
from core.api.views import ObjectView
from core.client.rest import Client
from core.clock import monotonic, timestamp, wall
from core.errors import ApiError, NotFound, ServiceUnavailable
from core.lull import LULL

__all__ = ["Recorder", "reference"]

log = logging.getLogger(__name__)

_REMEMBERED = 4096
_AGGREGATE_SECONDS = 600.0
_TRIES = 3
_RETRY_SECONDS = 1.0
_DELAY = 0.1
"""Seconds from an event to its post: what it tells of has better use for them."""

_BATCH, _PAUSE = 8, 0.02
"""After so many posts there is a pause of so many seconds: the events of a burst (a hundred Pods at once) follow it, and don't slow it down."""
_CROWD = 10
"""So many more delays pass where events of more than a batch wait: what they tell of is still going on."""

_Key = tuple[str, str, str, str, str, str, str]


def reference(kind: Kind, view: ObjectView) -> Document:
    """The `v1.ObjectReference` of an object: what an event is about."""
    meta = view.metadata
    found = {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "name": meta.name,
        "namespace": meta.namespace,
        "uid": meta.uid,
        "resourceVersion": meta.resource_version,
    }
    return {field: value for field, value in found.items() if value}


@dataclass(slots=True)
class _Pending:
    """Occurrences of one event that are not posted yet. `first` and `last` are seconds since the epoch."""

    about: Document
    type: str
    reason: str
    message: str
    first: float
    last: float
    count: int = 1


@dataclass(slots=True)
class _Posted:
    """An Event that the API has; `at` is on the monotonic clock."""

    namespace: str
    name: str
    count: int
    at: float


class Recorder:
    """Posts events in the name of `component` on `host`, from one task that lives while there is something to post."""

    def __init__(self, client: Client, component: str, host: str = "", *, capacity: int = 1000) -> None:
        self._client = client
        self._component, self._host = component, host
        self._capacity = capacity
        self._pending: OrderedDict[_Key, _Pending] = OrderedDict()
        self._posted: OrderedDict[_Key, _Posted] = OrderedDict()
        self._task: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._stopped = False
        self.dropped = 0

    def event(self, about: Document, type_: str, reason: str, message: str) -> None:
        """Record that `reason` (CamelCase) happened to the object of the reference `about`; `type_` is Normal or Warning.

        Must be called on the event loop. Drops the event where `capacity` distinct ones wait already.
        """
        if self._stopped:
            return
        key = (
            about.get("kind", ""), about.get("namespace", ""), about.get("name", ""), about.get("uid", ""),
            type_, reason, message,
        )  # fmt: skip
        now = wall()
        pending = self._pending.get(key)
        if pending is not None:
            pending.count += 1
            pending.last = now
            return
        if len(self._pending) >= self._capacity:
            self._drop("the queue is full")
            return
        self._pending[key] = _Pending(about, type_, reason, message, now, now)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._drain(), name=f"events-{self._component}")

    async def stop(self, grace: float = 1.0) -> None:
        """Post what waits, for at most `grace` seconds; later events are ignored."""
        self._stopped = True
        self._hurry.set()
        task = self._task
        if task is None:
            return
        await asyncio.wait([task], timeout=grace)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def _drain(self) -> None:
        try:
            await self._pause(_DELAY)
            for _ in range(_CROWD):
                if not _BATCH < len(self._pending) < self._capacity // 2:
                    break
                await self._pause(_DELAY)
            posted = 0
            while self._pending:
                if not self._stopped:
                    await LULL.wait()
                key, pending = self._pending.popitem(last=False)
                await self._record(key, pending)
                posted += 1
                if posted % _BATCH == 0 and len(self._pending) < self._capacity // 2:
                    await self._pause(_PAUSE)
                else:
                    await asyncio.sleep(0)  # In the API server's own process a request may never wait.
        finally:
            self._task = None

    async def _pause(self, seconds: float) -> None:
        """Sleep, unless it is told to stop."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()

    async def _record(self, key: _Key, pending: _Pending) -> None:
        for attempt in range(_TRIES):
            if attempt:
                await asyncio.sleep(_RETRY_SECONDS)
            try:
                await self._write(key, pending)
                return
            except ServiceUnavailable as error:
                reason = error.message
            except ApiError as error:
                self._drop(error.message)
                return
            except Exception:
                log.exception("could not record %s of %s", pending.reason, pending.about)
                return
        self._drop(reason)

    async def _write(self, key: _Key, pending: _Pending) -> None:
        now = monotonic()
        posted = self._posted.get(key)
        if posted is not None and now - posted.at <= _AGGREGATE_SECONDS:
            count = posted.count + pending.count
            patch = {"count": count, "lastTimestamp": timestamp(pending.last), "message": pending.message}
            try:
                await self._client.patch(EVENT, posted.name, posted.namespace, patch)
            except NotFound:
                del self._posted[key]  # It expired on the server: begin again.
            else:
                posted.count, posted.at = count, now
                self._posted.move_to_end(key)
                return
        document = self._document(pending)
        metadata = document["metadata"]
        await self._client.create(EVENT, document, metadata["namespace"])
        self._posted[key] = _Posted(metadata["namespace"], metadata["name"], pending.count, now)
        self._posted.move_to_end(key)
        if len(self._posted) > _REMEMBERED:
            self._posted.popitem(last=False)

    def _document(self, pending: _Pending) -> Document:
        about = pending.about
        source = {"component": self._component}
        if self._host:
            source["host"] = self._host
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{about.get('name', '')[:200]}.{uuid.uuid4().hex[:16]}",
                # An object of the cluster has its events in `default` (k8s.io/client-go/tools/record).
                "namespace": about.get("namespace") or "default",
            },
            "involvedObject": about,
            "type": pending.type,
            "reason": pending.reason,
            "message": pending.message[:1024],
            "source": source,
            "reportingComponent": self._component,
            "reportingInstance": self._host,
            "firstTimestamp": timestamp(pending.first),
            "lastTimestamp": timestamp(pending.last),
            "count": pending.count,
        }

    def _drop(self, reason: str) -> None:
        self.dropped += 1
        if self.dropped & (self.dropped - 1) == 0:  # The 1st, 2nd, 4th, 8th ... so that a flood isn't logged.
            log.warning("%s: %d events dropped so far: %s", self._component, self.dropped, reason)
