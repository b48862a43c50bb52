"""The edge of priority and fairness: finds a request's place, lets it run at once where there is room, else makes it wait or refuses it.

A request that finds a seat costs a look-up and two counters: no task, no timer, no future. Only those that wait have a future, and
all of them together one timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, NamedTuple

from core.api.kinds import FLOW_SCHEMA, PRIORITY_LEVEL_CONFIGURATION, Kind
from core.apiserver.authn import User
from core.apiserver.dispatch import RequestInfo
from core.apiserver.flow import bootstrap
from core.apiserver.flow.queues import Seats, Ticket
from core.apiserver.flow.schemas import FlowSchema, limits, parse
from core.apiserver.flow.width import Widths
from core.apiserver.follow import Following
from core.apiserver.served import Served
from core.asgi import GONE, HOLD
from core.clock import monotonic
from core.errors import TooManyRequests
from core.store.base import Store

__all__ = ["MAX_WAIT", "FlowControl", "Place", "Turn", "long_running"]

MAX_WAIT = 15.0
"""Seconds in a queue at most: a quarter of a request's time, as in Kubernetes."""
TOTAL_SEATS = 32
"""Requests that run at once, but for those that are exempt. One event loop answers no faster with more; with less, fewer writes share a
commit to the disk."""
_HOLD_SECONDS = 1.0
"""For which the connection of a refused request isn't read: as long as the refusal asks to wait."""
WATCHES_PER_USER = 1000
"""Of users who aren't exempt."""
BODIES = 256 * 1024 * 1024
"""Bytes of all bodies together that are being received or worked on, but for short ones."""
_STREAMS = ("attach", "exec", "log", "portforward", "proxy")
_REMEMBERED = 8192
Scope = MutableMapping[str, Any]


class Place(NamedTuple):
    """Where a request belongs: `level` is "" for what is exempt. `headers` say so in its reply, and so do `fields`, which are their lines."""

    level: str
    flow: tuple[str, str]
    headers: tuple[tuple[bytes, bytes], ...]
    fields: bytes


def long_running(info: RequestInfo) -> bool:
    """Watches, and streams of Pods and nodes: they have no deadline, and streams take no seat."""
    return info.verb == "watch" or info.subresource in _STREAMS


class Turn:
    """What one request holds of the flow control: a seat until it has been answered, or its watch has begun; a place among its user's watches."""

    __slots__ = ("_bytes", "_control", "_ticket", "_watcher", "answering")

    def __init__(self, control: FlowControl) -> None:
        self.answering = False
        """The reply has begun."""
        self._control = control
        self._ticket: Ticket | None = None
        self._watcher = ""
        self._bytes = 0

    async def take(self, place: Place, user: User, info: RequestInfo, query: Mapping[str, str], scope: Scope) -> None:
        """Wait until the request may run. Raises `TooManyRequests`."""
        if not place.level or info.subresource in _STREAMS:
            return
        try:
            if info.verb == "watch":
                self._control.count_watch(user.name)
                self._watcher = user.name
            self._ticket = await self._control.enter(place, info, query, scope)
        except TooManyRequests:
            scope[HOLD] = _HOLD_SECONDS
            raise

    def labelled(self, place: Place, send: Any) -> Any:
        """`send` (ASGI) that says the place in the reply's headers."""

        def labelling(message: Any) -> Any:  # no coroutine of its own: a watch sends thousands of messages
            if message["type"] == "http.response.start":
                self.answering = True
                message["headers"] = [*message["headers"], *place.headers]
            return send(message)

        return labelling

    def begun(self) -> None:
        """What is long has passed its beginning, which is all that it has a seat for."""
        self._control.leave(self._ticket)

    def grow(self, size: int) -> None:
        """So many more bytes of the body are held. Raises `TooManyRequests`."""
        if self._control.bodies + size > BODIES:
            raise TooManyRequests("Too many long requests, please try again later.", {"retryAfterSeconds": 1})
        self._control.bodies += size
        self._bytes += size

    def end(self) -> None:
        self._control.leave(self._ticket)
        self._control.bodies -= self._bytes
        self._bytes = 0
        if self._watcher:
            self._control.uncount_watch(self._watcher)
            self._watcher = ""


class FlowControl:
    """`start` before the first request over HTTP; what is stored by then, and later, configures it."""

    def __init__(
        self, store: Store, served: Served, *, seats: int = TOTAL_SEATS, clock: Callable[[], float] = monotonic
    ) -> None:
        self.seats = Seats(seats)
        self._clock = clock
        self._widths = Widths(store, served, clock)
        self._schemas: dict[str, FlowSchema] = {}
        self._levels: dict[str, tuple[str, dict[str, Any]]] = {}
        self._ordered: list[FlowSchema] = []
        self._places: dict[tuple[Any, ...], Place] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._turn: asyncio.Handle | None = None
        self._watches: dict[str, int] = {}
        self.bodies = 0
        self._following = Following(store, (FLOW_SCHEMA, PRIORITY_LEVEL_CONFIGURATION), self._put, self._drop)
        for kind, documents in ((FLOW_SCHEMA, bootstrap.schemas()), (PRIORITY_LEVEL_CONFIGURATION, bootstrap.levels())):
            for document in documents:
                if document["metadata"]["name"] in bootstrap.MANDATORY:
                    self._take(kind, document)
        self._rebuild()

    async def start(self) -> None:
        await self._following.start()

    async def stop(self) -> None:
        await self._following.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None

    # What configures it

    def _put(self, kind: Kind, key: str, document: dict[str, Any]) -> None:
        self._take(kind, document)
        self._rebuild()

    def _take(self, kind: Kind, document: dict[str, Any]) -> None:
        name = document["metadata"]["name"]
        if kind == FLOW_SCHEMA:
            self._schemas[name] = parse(document)
        else:
            self._levels[name] = (document["metadata"].get("uid") or "", document.get("spec") or {})

    def _drop(self, kind: Kind, key: str) -> None:
        name = key.rpartition("/")[2]
        if name in bootstrap.MANDATORY:
            return  # they hold whether somebody deletes them or not; the next start stores them again
        if kind == FLOW_SCHEMA:
            self._schemas.pop(name, None)
        else:
            self._levels.pop(name, None)
        self._rebuild()

    def _rebuild(self) -> None:
        self._ordered = sorted(self._schemas.values(), key=lambda each: (each.precedence, each.name))
        self.seats.configure(limits({name: spec for name, (_, spec) in self._levels.items()}, self.seats.total))
        self._places.clear()
        self._seat()

    # Requests

    def place(self, user: User, info: RequestInfo) -> Place:
        """The first schema that matches and whose level exists."""
        at = (
            user.name,
            user.groups,
            info.verb,
            info.group,
            info.full_resource,
            info.namespace,
            info.resource or info.path,
        )
        found = self._places.get(at)
        if found is None:
            if len(self._places) >= _REMEMBERED:
                self._places.clear()
            found = self._places[at] = self._find(user, info)
        return found

    def _find(self, user: User, info: RequestInfo) -> Place:
        schema = next(
            (each for each in self._ordered if each.level in self._levels and each.matches(user, info)),
            self._schemas[bootstrap.CATCH_ALL],
        )
        uid, spec = self._levels[schema.level]
        headers = (
            (b"x-kubernetes-pf-flowschema-uid", schema.uid.encode()),
            (b"x-kubernetes-pf-prioritylevel-uid", uid.encode()),
        )
        fields = b"".join(b"%b: %b\r\n" % each for each in headers)
        exempt = spec.get("type") == "Exempt"
        return Place("" if exempt else schema.level, (schema.name, schema.flow(user, info)), headers, fields)

    async def enter(self, place: Place, info: RequestInfo, query: Mapping[str, str], scope: Scope) -> Ticket | None:
        """Returns when the request may run; None for what is exempt. `leave` is the caller's duty. Raises `TooManyRequests`."""
        if not place.level:
            return None
        width = await self._widths.of(info, query) if info.verb in ("list", "watch") else 1
        now = self._clock()
        if place.level not in self.seats.levels:  # its level went while the width was looked up
            place = self._find_catch_all(place)
        ticket, victim = self.seats.offer(place.level, place.flow, width, now)
        if victim is not None:
            self._wake([victim])
        if not ticket.runs:
            if ticket.gone:
                raise _refusal()
            await self._wait(ticket, scope, now)
        return ticket

    def _find_catch_all(self, place: Place) -> Place:
        return place._replace(level=bootstrap.CATCH_ALL)

    async def _wait(self, ticket: Ticket, scope: Scope, now: float) -> None:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not waiter.done():
                waiter.set_result(None)

        ticket.wake = wake
        scope[GONE] = lambda: self.leave(ticket)
        if self._timer is None:
            self._timer = loop.call_later(MAX_WAIT, self._expire)
        try:
            await waiter
        except BaseException:
            self.leave(ticket)
            raise
        finally:
            scope.pop(GONE, None)
        if not ticket.runs:
            raise _refusal()

    def leave(self, ticket: Ticket | None) -> None:
        """The request is over, or nobody waits for it any more. Calling it twice is fine."""
        if ticket is None or ticket.gone:
            return
        waited = not ticket.runs
        self.seats.finish(ticket, self._clock())
        if waited:
            self._wake([ticket])
        self._seat()

    def _seat(self) -> None:
        """Let those begin that may, one of each level in a turn of the event loop: each has something to do then, and one who comes meanwhile
        and finds a seat isn't to wait for all of them."""
        if self._turn is None and any(self.seats.waiting()):
            self._turn = asyncio.get_running_loop().call_soon(self._seat_next)

    def _seat_next(self) -> None:
        self._turn = None
        started = self.seats.start(self._clock(), 1)
        self._wake(started)
        if started:
            self._seat()

    def count_watch(self, user: str) -> None:
        """Raises `TooManyRequests`."""
        count = self._watches.get(user, 0)
        if count >= WATCHES_PER_USER:
            raise TooManyRequests(
                f"{user} has {count} watches open, which is as many as one user may", {"retryAfterSeconds": 1}
            )
        self._watches[user] = count + 1

    def uncount_watch(self, user: str) -> None:
        self._watches[user] -= 1
        if not self._watches[user]:
            del self._watches[user]

    def _wake(self, tickets: list[Ticket]) -> None:
        for each in tickets:
            if each.wake is not None:
                each.wake()

    def _expire(self) -> None:
        """Refuses those that have waited too long, and looks again when the next one will have."""
        now, self._timer = self._clock(), None
        self._wake(self.seats.expire(now - MAX_WAIT))
        oldest = [
            flow.waiting[0].arrived for level in self.seats.waiting() for flow in level.flows.values() if flow.waiting
        ]
        if oldest:
            after = max(min(oldest) + MAX_WAIT - now, 0.01)
            self._timer = asyncio.get_running_loop().call_later(after, self._expire)


def _refusal() -> TooManyRequests:
    return TooManyRequests("Too many requests, please try again later.", {"retryAfterSeconds": 1})
