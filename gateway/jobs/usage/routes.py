"""`GET /system/usage`: what namespaces have used, by day and function."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.clock import parse_time
from core.errors import BadRequest, ServiceUnavailable
from faaslite.api.durations import parse_duration
from gateway.jobs.auth import Access
from gateway.jobs.call_routes import listed
from gateway.jobs.replies import json
from gateway.jobs.usage.collector import Collector
from gateway.jobs.usage.ledger import Row, day_of

__all__ = ["UsageRoutes", "documents", "since_day"]

_DAYS = re.compile(r"([0-9]{1,4})d")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class UsageRoutes:
    """`collector` is None where another jobs process of this data dir keeps the ledger."""

    def __init__(self, access: Access, collector: Callable[[], Collector | None], clock: Callable[[], float]) -> None:
        self._access = access
        self._collector = collector
        self._clock = clock

    def routes(self) -> list[Route]:
        return [Route("/system/usage", self.usage, methods=["GET"])]

    async def usage(self, request: Request) -> Response:
        namespace = await listed(self._access, request)
        since = since_day(request.query_params.get("since", "30d"), self._clock())
        collector = self._collector()
        if collector is None:
            raise ServiceUnavailable("another jobs process keeps the usage of this data dir")
        return json({"since": since, "items": documents(await collector.rows(since, namespace))})


def since_day(text: str, now: float) -> str:
    """The day (UTC) that is meant by `30d`, `36h`, `2026-01-31` or a time of RFC 3339. Raises BadRequest."""
    try:
        if (days := _DAYS.fullmatch(text)) is not None:
            return day_of(now - int(days[1]) * 86400.0)
        if _DAY.fullmatch(text):
            return day_of(parse_time(f"{text}T00:00:00Z"))
        return day_of(parse_time(text) if "T" in text else now - parse_duration(text))
    except ValueError:
        raise BadRequest(f'since: "{text}" is neither a span (30d, 12h), a day (2026-01-31) nor a time') from None


def documents(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """One for each day and function. Of what gateways were asked, that which jobs asked is told by its trigger."""
    found: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in rows:
        found.setdefault((row.day, row.namespace, row.function), {})[row.what] = row.amount
    return [_document(*key, amounts) for key, amounts in found.items()]


def _document(day: str, namespace: str, function: str, amounts: dict[str, float]) -> dict[str, Any]:
    calls: dict[str, dict[str, int]] = {"http": {}, "async": {}, "cron": {}}
    for what, amount in amounts.items():
        group, _, result = what.partition(".")
        if group == "invocations":
            direct = round(amount - amounts.get(f"executed.{result}", 0.0))
            if direct > 0:
                calls["http"][result] = direct
        elif group in calls:
            calls[group][result] = round(amount)
    return {
        "day": day,
        "namespace": namespace,
        "function": function,
        "calls": calls,
        "runSeconds": round(amounts.get("run_seconds", 0.0), 3),
        "coldStarts": round(amounts.get("cold_starts", 0.0)),
        "instanceSeconds": round(amounts.get("instance_seconds", 0.0), 1),
        "memoryGiBSeconds": round(amounts.get("memory_byte_seconds", 0.0) / (1 << 30), 3),
        "receivedBytes": round(amounts.get("received_bytes", 0.0)),
        "sentBytes": round(amounts.get("sent_bytes", 0.0)),
    }
