"""Pages for whoever looks after the server: where its event loop spends its time, and who waits for a seat.

They are paths like `/metrics`: allowed by `nonResourceURLs` of a role, to administrators by theirs. A profile counts every call of the loop's thread and makes the
server about half as fast meanwhile. Samples of another thread would be cheaper and wrong: that thread runs where the loop lets go of the
interpreter, not where it is busy.
"""

from __future__ import annotations

import asyncio
import cProfile
import io
import pstats

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from core.apiserver.flow.queues import Seats

__all__ = ["Debug"]

_MAX_SECONDS = 45.0
_DEFAULT_SECONDS = 30.0
"""As `net/http/pprof` has it."""
_LINES = 200
_SORTS = ("tottime", "cumulative", "ncalls")


class Debug:
    def __init__(self, seats: Seats) -> None:
        self._seats = seats
        self._busy = False

    def routes(self) -> list[Route]:
        return [
            Route("/debug/pprof/profile", self.profile),
            Route("/debug/api_priority_and_fairness/dump_priority_levels", self.levels),
            Route("/debug/api_priority_and_fairness/dump_queues", self.queues),
        ]

    async def profile(self, request: Request) -> Response:
        """`?seconds=N` (30, and 45 at most) and `sort` (`tottime`, `cumulative`, `ncalls`): the table of `pstats`. One at a time."""
        try:
            seconds = float(request.query_params.get("seconds") or _DEFAULT_SECONDS)
        except ValueError:
            seconds = -1.0
        if not 0 < seconds <= _MAX_SECONDS:
            return PlainTextResponse(f"seconds must be a number above 0 and up to {_MAX_SECONDS:g}\n", 400)
        sort = request.query_params.get("sort") or _SORTS[0]
        if sort not in _SORTS:
            return PlainTextResponse(f"sort must be one of {', '.join(_SORTS)}\n", 400)
        if self._busy:
            return PlainTextResponse("another profile is being made\n", 409)
        self._busy, profile = True, cProfile.Profile()
        try:
            try:
                profile.enable()
            except ValueError as error:  # since Python 3.12 another tool may have the thread
                return PlainTextResponse(f"{error}\n", 409)
            await asyncio.sleep(seconds)
        finally:
            profile.disable()
            self._busy = False
        text = io.StringIO()
        pstats.Stats(profile, stream=text).sort_stats(sort).print_stats(_LINES)
        return PlainTextResponse(text.getvalue())

    async def levels(self, request: Request) -> Response:
        """A line per priority level, with Kubernetes' columns."""
        rows = ["PriorityLevelName, ActiveQueues, IsIdle, IsQuiescing, WaitingRequests, ExecutingRequests, DispatchedRequests, RejectedRequests, TimedoutRequests, Seats, SeatsInUse"]  # fmt: skip
        for each in sorted(self._seats.levels.values(), key=lambda level: level.name):
            idle = not each.running and not each.waiting
            active = sum(bool(flow.waiting) for flow in each.flows.values())
            counts = (each.waiting, each.running, each.dispatched, each.rejected, each.timed_out, each.limits.nominal, each.in_use)  # fmt: skip
            rows.append(f"{each.name}, {active}, {str(idle).lower()}, false, {', '.join(map(str, counts))}")
        return PlainTextResponse("\n".join(rows) + "\n")

    async def queues(self, request: Request) -> Response:
        """A line per flow that has requests: its schema and what tells it apart, who waits and who runs."""
        rows = ["PriorityLevelName, FlowSchemaName, FlowDistinguisher, PendingRequests, ExecutingRequests, VirtualTime"]
        for level in self._seats.levels.values():
            for key, flow in level.flows.items():
                schema, who = key if isinstance(key, tuple) else (key, "")
                rows.append(f"{level.name}, {schema}, {who}, {len(flow.waiting)}, {flow.running}, {flow.virtual:.4f}")
        return PlainTextResponse("\n".join(rows) + "\n")
