"""`/system/cron`: triggers, when they fire, and instants that are run by hand. Every request is asked who it is from and whether they may."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.clock import micro_time, parse_time
from core.errors import BadRequest, NotFound
from gateway.jobs.auth import Access
from gateway.jobs.call_routes import document_of, listed
from gateway.jobs.calls.base import CallRecord, Calls
from gateway.jobs.cron.planner import Due
from gateway.jobs.cron.ticker import Ticker, call_of
from gateway.jobs.functions import CronTrigger
from gateway.jobs.replies import json

__all__ = ["CronRoutes"]

MOST_TOLD = 1000
MOST_BACKFILLED = 1000
LONGEST_SEARCH = 5.0
"""Seconds of work for one answer."""


class CronRoutes:
    """`clock` gives seconds since the epoch."""

    def __init__(self, access: Access, calls: Calls, ticker: Ticker, clock: Callable[[], float]) -> None:
        self._access = access
        self._calls = calls
        self._ticker = ticker
        self._clock = clock

    def routes(self) -> list[Route]:
        one = "/system/cron/{namespace}/{function}/{name}"
        return [
            Route("/system/cron", self.list_cron, methods=["GET"]),
            Route(f"{one}/next", self.upcoming, methods=["GET"]),
            Route(f"{one}/run", self.run, methods=["POST"]),
            Route(f"{one}/backfill", self.backfill, methods=["POST"]),
        ]

    async def list_cron(self, request: Request) -> Response:
        namespace = await listed(self._access, request)
        function = request.query_params.get("function", "")
        latest = await self._calls.latest_cron(self._clock())
        items = [
            _item(trigger, fires, latest.get(trigger.key))
            for trigger, fires in self._ticker.upcoming()
            if (not namespace or trigger.namespace == namespace) and (not function or trigger.function == function)
        ]
        return json({"items": items})

    async def upcoming(self, request: Request) -> Response:
        """The coming instants, `count` of them."""
        trigger = await self._known(request, "get")
        text = request.query_params.get("count", "5")
        if not text.isdecimal() or not 0 < int(text) <= MOST_TOLD:
            raise BadRequest(f"count is a number from 1 to {MOST_TOLD}")
        found: list[str] = []
        for instant in _after(trigger, self._clock()):
            if len(found) >= int(text):
                break
            found.append(micro_time(instant))
        return json({"instants": found, "paused": trigger.paused, "timeZone": trigger.zone, "jitter": trigger.jitter})

    async def run(self, request: Request) -> Response:
        """Once now, whatever the schedule and whether it is paused; a `payload` may take the place of the trigger's."""
        trigger = await self._known(request, "update")
        document = await document_of(request)
        if "payload" in document:
            trigger = msgspec.structs.replace(trigger, payload=document["payload"])
        now = self._clock()
        (answer,) = await self._calls.insert([call_of(Due(_by_hand(trigger, "Allow"), now), now)])
        return json({"callId": answer.id}, 202, {"Location": f"/system/calls/{answer.id}"})

    async def backfill(self, request: Request) -> Response:
        """Run the instants of `[from, to]` that have no record. Each is run: after one another, unless overlap is Allow."""
        trigger = await self._known(request, "update")
        document = await document_of(request)
        now = self._clock()
        first, last = _instant(document, "from", None), _instant(document, "to", now)
        if last > now:
            raise BadRequest("to lies in the future: what is to come runs by itself")
        if first > last:
            raise BadRequest("from is later than to")
        due: list[Due] = []
        until = time.monotonic() + LONGEST_SEARCH
        by_hand = _by_hand(trigger, "Allow" if trigger.overlap == "Allow" else "Queue")
        for instant in _after(trigger, first - 0.001):
            if instant > last:
                break
            if len(due) >= MOST_BACKFILLED or time.monotonic() > until:
                raise BadRequest(f"there are over {len(due)} instants in that time: ask for less of it at once")
            due.append(Due(by_hand, instant))
        if document.get("dryRun"):
            return json({"instants": [micro_time(each.instant) for each in due], "calls": []})
        answers = await self._calls.insert([call_of(each, now) for each in due]) if due else []
        calls = [
            {"instant": micro_time(each.instant), "callId": answer.id}
            for each, answer in zip(due, answers, strict=True)
            if answer.status
        ]
        return json({"calls": calls, "existing": len(due) - len(calls)}, 202)

    async def _known(self, request: Request, verb: str) -> CronTrigger:
        caller = await self._access.caller(request.headers.get("authorization"))
        path = request.path_params
        await self._access.may(caller, verb, path["namespace"])
        found = self._ticker.trigger((path["namespace"], path["function"], path["name"]))
        if found is None:
            raise NotFound(f'the function "{path["function"]}" has no cron trigger "{path["name"]}"')
        return found


def _by_hand(trigger: CronTrigger, overlap: str) -> CronTrigger:
    return msgspec.structs.replace(trigger, overlap=overlap)


def _after(trigger: CronTrigger, after: float) -> Iterator[float]:
    instant = trigger.schedule.next(after, trigger.zone)
    while instant is not None:
        yield instant
        instant = trigger.schedule.next(instant, trigger.zone)


def _instant(document: dict[str, Any], name: str, default: float | None) -> float:
    text = document.get(name)
    if text is None and default is not None:
        return default
    try:
        return parse_time(str(text))
    except ValueError:
        raise BadRequest(f"{name} is a time like 2026-01-31T12:00:00Z") from None


def _item(trigger: CronTrigger, fires: float | None, last: CallRecord | None) -> dict[str, Any]:
    at = last and last.scheduled_at
    return {
        "namespace": trigger.namespace,
        "function": trigger.function,
        "name": trigger.name,
        "schedule": trigger.schedule.text,
        "timeZone": trigger.zone,
        "next": None if fires is None else micro_time(fires),
        "last": last and {"at": micro_time(at) if at else None, "status": last.status, "callId": last.id},
        "paused": trigger.paused,
        "overlap": trigger.overlap,
        "missed": trigger.missed,
        "jitter": trigger.jitter,
        "retries": trigger.retries,
    }
