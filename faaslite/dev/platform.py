"""The local platform: functions, a gateway with the cluster's paths and errors, calls in the background, cron on a clock of its own."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import shutil
import tempfile
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from core.clock import micro_time
from faaslite.api.durations import parse_duration
from faaslite.build.plan import Asked
from faaslite.dev.asking import HOP, Asking, Refused
from faaslite.dev.clock import Clock, Trigger, due, next_of
from faaslite.dev.functions import Functions, Running, Say
from faaslite.dev.sockets import is_websocket

__all__ = ["LocalPlatform"]

KEPT_CALLS = 1000
RESULT_BYTES = 64 * 1024
RETRIED = frozenset({408, 425, 429})
"""As in a cluster: answers under 500 that invite to try again."""


class LocalPlatform:
    """`at` sets the clock (seconds since the epoch); `say(name, line)` gets what functions and the platform write."""

    def __init__(
        self,
        cache: Path,
        *,
        port: int = 0,
        at: float | None = None,
        say: Say = lambda *_: None,
        retry_delay: float = 1.0,
    ) -> None:
        self.clock = Clock(at)
        self.url = ""
        self.calls: dict[str, dict[str, Any]] = {}
        self._order: deque[str] = deque()
        self._port = port
        self._say = say
        self._retry_delay = retry_delay
        self._scratch = Path(tempfile.mkdtemp(prefix="faaslite-dev-"))
        self.functions = Functions(cache, self._scratch, say)
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._ticked = self.clock.now()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None), cookie_jar=aiohttp.DummyCookieJar(), connector=aiohttp.TCPConnector(limit=0))  # fmt: skip
        application = web.Application(client_max_size=100 * 1024 * 1024)
        application.router.add_route("*", "/function/{name}{path:(/.*)?}", self._function)
        application.router.add_route("POST", "/async-function/{name}{path:(/.*)?}", self._accept)
        application.router.add_get("/system/calls", self._list_calls)
        application.router.add_get("/system/calls/{id}", self._show_call)
        application.router.add_get("/system/cron", self._list_cron)
        application.router.add_post("/system/clock", self._step_clock)
        application.router.add_get("/healthz", self._healthy)
        application.router.add_route("*", "/{path:.*}", self._routed)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = self.functions.gateway = f"http://{host}:{port}"
        self._ticking = asyncio.create_task(self._tick())

    async def stop(self) -> None:
        tasks = [*self._tasks, *([self._ticking] if self._ticking else [])]
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()
        await self.functions.stop()
        shutil.rmtree(self._scratch, ignore_errors=True)

    async def load(self, path: Path, asked: Asked, secrets: Mapping[str, Mapping[str, str]] | None = None) -> list[str]:
        """Deploy, or deploy again, what a path declares. Raises BuildError, FunctionInvalid."""
        names = await self.functions.load(path, asked, secrets or {}, self.clock.now())
        self._changed.set()
        return names

    # Calls

    def _find(self, name: str) -> Running | None:
        plain, _, namespace = name.partition(".")
        return self.functions.table.get((namespace or "default", plain))

    async def _function(self, request: web.Request) -> web.StreamResponse:
        return await self._pass_on(request, self._find(request.match_info["name"]), request.match_info["path"])

    async def _routed(self, request: web.Request) -> web.StreamResponse:
        best: tuple[int, Running] | None = None
        for running in self.functions.table.values():
            for route in running.function.spec.http.routes:
                prefix = route.path.rstrip("/")
                fits = request.path == prefix or request.path.startswith(f"{prefix}/")
                if (
                    fits
                    and (not route.methods or request.method in route.methods)
                    and (best is None or len(prefix) > best[0])
                ):
                    best = (len(prefix), running)
        if best is None:
            return _error(
                404,
                "NotFound",
                f"there is nothing at {request.path}; functions are at /function/NAME",
                _call_id(request),
            )
        return await self._pass_on(request, best[1], request.raw_path.partition("?")[0])

    async def _pass_on(self, request: web.Request, running: Running | None, path: str) -> web.StreamResponse:
        call_id = _call_id(request)
        query = request.raw_path.partition("?")[2]
        raw = request.raw_path.partition("?")[0]
        if path:  # as it was sent, not as it was decoded
            raw_path = raw.split("/", 3)[3] if raw.startswith("/function/") and raw.count("/") > 2 else raw.lstrip("/")
        else:
            raw_path = ""
        headers = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in request.raw_headers]
        headers += [("X-Forwarded-Host", request.host), ("X-Forwarded-Proto", "http"), ("X-Forwarded-For", "127.0.0.1")]
        target = f"/{raw_path}" + (f"?{query}" if query else "")
        try:
            if is_websocket(request):
                async with self._ask(running, request.method, target, headers, b"", call_id) as asking:
                    return await asking.websocket(request)
            body = await request.read()
            async with self._ask(running, request.method, target, headers, body, call_id) as asking:
                response = await asking.response()
                reply = web.StreamResponse(status=response.status)
                for name, value in response.raw_headers:
                    if name.decode().lower() not in HOP:
                        reply.headers.add(name.decode("latin-1"), value.decode("latin-1"))
                if "Content-Length" in response.headers:
                    reply.content_length = int(response.headers["Content-Length"])
                reply.headers["X-Call-Id"] = call_id
                await reply.prepare(request)
                async for chunk in response.content.iter_any():
                    await reply.write(chunk)
                await reply.write_eof()
                return reply
        except Refused as refused:
            return _error(refused.status, refused.reason, str(refused), call_id)

    def _ask(
        self,
        running: Running | None,
        method: str,
        target: str,
        headers: list[tuple[str, str]],
        body: bytes,
        call_id: str,
    ) -> Asking:
        assert self._session is not None
        return Asking(self._session, self.functions, running, method, target, headers, body, call_id)

    async def _accept(self, request: web.Request) -> web.Response:
        call_id = _call_id(request)
        running = self._find(request.match_info["name"])
        if running is None:
            return _error(404, "FunctionNotFound", f"there is no function {request.match_info['name']}", call_id)
        body = await request.read()
        if len(body) > 1 << 20:
            return _error(413, "PayloadTooLarge", "the body of an asynchronous call is over 1048576 bytes", call_id)
        query = request.raw_path.partition("?")[2]
        target = (request.match_info["path"] or "/") + (f"?{query}" if query else "")
        headers = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in request.raw_headers]
        record = self._record(call_id, running, "async")
        task = asyncio.create_task(self.execute(record, running, "POST", target, headers, body))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return web.json_response({"callId": call_id}, status=202, headers={"X-Call-Id": call_id})

    def _record(
        self, call_id: str, running: Running, trigger: str, cron: str = "", scheduled: float | None = None
    ) -> dict[str, Any]:
        meta = running.function.metadata
        record = {
            "id": call_id, "namespace": meta.namespace, "function": meta.name, "trigger": trigger, "cron": cron or None,
            "scheduledAt": micro_time(scheduled) if scheduled is not None else None, "acceptedAt": micro_time(self.clock.now()),
            "startedAt": None, "finishedAt": None, "status": "Queued", "attempts": 0, "httpStatus": None, "result": None, "error": None,
        }  # fmt: skip
        self.calls[call_id] = record
        self._order.append(call_id)
        if len(self._order) > KEPT_CALLS:
            self.calls.pop(self._order.popleft(), None)
        return record

    async def execute(self, record: dict[str, Any], running: Running, method: str, target: str, headers: list[tuple[str, str]], body: bytes) -> None:  # fmt: skip
        """Run a call as the cluster's jobs do: attempts with growing pauses, then a record of how it ended."""
        retries = running.function.spec.async_.retries if record["trigger"] == "async" else 0
        record["startedAt"], record["status"] = micro_time(self.clock.now()), "Running"
        status, kind, data, error = 0, "", b"", ""
        for attempt in range(retries + 1):
            record["attempts"] = attempt + 1
            try:
                async with self._ask(running, method, target, headers, body, record["id"]) as asking:
                    response = await asking.response()
                    status, kind, data, error = (
                        response.status,
                        response.headers.get("Content-Type", ""),
                        await response.read(),
                        "",
                    )
            except Refused as refused:
                status, error = refused.status, f"{refused.reason}: {refused}"
            if 200 <= status < 400 or (status < 500 and status not in RETRIED) or attempt == retries:
                break
            await asyncio.sleep(self._retry_delay * 2**attempt * (0.5 + random.random() / 2))  # noqa: S311
        record |= {
            "httpStatus": status or None, "finishedAt": micro_time(self.clock.now()), "status": "Succeeded" if 200 <= status < 400 else "Failed",
            "result": _result(kind, data), "error": (error or data[:1000].decode(errors="replace")) if status >= 400 or not status else None,
        }  # fmt: skip

    async def _list_calls(self, request: web.Request) -> web.Response:
        name = request.query.get("function", "")
        found = [each for each in reversed(self.calls.values()) if not name or each["function"] == name]
        return web.json_response({"items": found[: int(request.query.get("limit", "50"))]})

    async def _healthy(self, _: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _show_call(self, request: web.Request) -> web.Response:
        record = self.calls.get(request.match_info["id"])
        if record is None:
            return _error(404, "NotFound", f"there is no call {request.match_info['id']}", "")
        return web.json_response(record)

    # Cron

    async def _tick(self) -> None:
        """Run what is due as the clock comes to it."""
        while True:
            self._changed.clear()
            now = self.clock.now()
            fires = [at for each in self.functions.triggers if (at := next_of(each, self._ticked)) is not None]
            if fires and min(fires) <= now:
                for each in self._due(now):
                    task = asyncio.create_task(self._fire(*each))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                continue
            try:
                await asyncio.wait_for(self._changed.wait(), min(min(fires) - now, 3600.0) if fires else None)
            except TimeoutError:
                continue

    def _due(self, now: float) -> list[tuple[float, Trigger]]:
        found = due(self.functions.triggers, self._ticked, now)
        self._ticked = max(now, self._ticked)
        return found

    async def step(self, seconds: float) -> list[dict[str, Any]]:
        """Move the clock forward and run what falls due on the way, in order: the records of these calls."""
        self.clock.step(seconds)
        records = [await self._fire(*each) for each in self._due(self.clock.now())]
        self._changed.set()
        return records

    async def _fire(self, at: float, trigger: Trigger) -> dict[str, Any]:
        running = next(
            each
            for each in self.functions.table.values()
            if trigger in each.triggers or each.function.name == trigger.function
        )
        record = self._record(os.urandom(12).hex(), running, "cron", trigger.name, at)
        self._say("", f"cron {trigger.name} of {trigger.function}, due {record['scheduledAt']}")
        body = b"" if trigger.payload is None else json.dumps(trigger.payload).encode()
        headers = [("X-Faaslite-Cron", trigger.name), *([("Content-Type", "application/json")] if body else [])]
        await self.execute(record, running, trigger.method, trigger.path, headers, body)
        return record

    async def _list_cron(self, _: web.Request) -> web.Response:
        items = []
        for each in self.functions.triggers:
            at = next_of(each, self._ticked)
            last = next(
                (
                    call
                    for call in reversed(self.calls.values())
                    if call["cron"] == each.name and call["function"] == each.function
                ),
                None,
            )
            items.append({
                "namespace": "default", "function": each.function, "name": each.name, "schedule": each.schedule, "timeZone": each.zone,
                "next": micro_time(at) if at is not None else None, "paused": False,
                "last": {"at": last["scheduledAt"], "status": last["status"], "callId": last["id"]} if last else None,
            })  # fmt: skip
        return web.json_response({"items": items})

    async def _step_clock(self, request: web.Request) -> web.Response:
        """`POST /system/clock?advance=1h`."""
        try:
            records = await self.step(parse_duration(request.query.get("advance", "")))
        except ValueError as error:
            return _error(400, "BadRequest", f"advance: {error}", "")
        return web.json_response({"now": micro_time(self.clock.now()), "calls": records})


def _call_id(request: web.Request) -> str:
    return request.headers.get("X-Call-Id") or os.urandom(12).hex()


def _error(status: int, reason: str, message: str, call_id: str) -> web.Response:
    document = {"error": reason, "message": message, "callId": call_id}
    return web.json_response(document, status=status, headers={"X-Call-Id": call_id} if call_id else None)


def _result(kind: str, data: bytes) -> dict[str, Any]:
    cut = data[:RESULT_BYTES]
    try:
        text, encoding = cut.decode(), "utf-8"
    except UnicodeDecodeError:
        text, encoding = base64.b64encode(cut).decode(), "base64"
    return {"contentType": kind, "encoding": encoding, "body": text, "truncated": len(data) > RESULT_BYTES}
