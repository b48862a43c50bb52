"""`/system/calls`: records of calls, and what can be done to them. Every request is asked who it is from and whether they may."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.errors import BadRequest, Conflict, NotFound
from gateway.jobs.auth import Access, Caller
from gateway.jobs.calls.base import (
    ASYNC,
    CANCELED,
    DEAD_LETTER,
    EXPIRED,
    FAILED,
    QUEUED,
    RUNNING,
    SKIPPED,
    SUCCEEDED,
    CallRecord,
    Calls,
    NewCall,
    Options,
    Redrive,
)
from gateway.jobs.documents import call_document
from gateway.jobs.functions import FunctionView, queueing
from gateway.jobs.replies import json
from gateway.jobs.waits import Waits

__all__ = ["CallRoutes", "document_of", "listed"]

MOST_LISTED = 1000
LARGEST_DOCUMENT = 1 << 20
LONGEST_WAIT = 300.0
STATUSES = (QUEUED, RUNNING, SUCCEEDED, FAILED, SKIPPED, CANCELED, EXPIRED, DEAD_LETTER)


class CallRoutes:
    """`function` looks a Function up by its key; `clock` gives seconds since the epoch."""

    def __init__(
        self,
        access: Access,
        calls: Calls,
        waits: Waits,
        function: Callable[[str], FunctionView | None],
        clock: Callable[[], float],
    ) -> None:
        self._access = access
        self._calls = calls
        self._waits = waits
        self._function = function
        self._clock = clock

    def routes(self) -> list[Route]:
        return [
            Route("/system/calls", self.list_calls, methods=["GET"]),
            Route("/system/calls/redrive", self.redrive, methods=["POST"]),
            Route("/system/calls/{id}", self.get_call, methods=["GET"]),
            Route("/system/calls/{id}/wait", self.wait, methods=["GET"]),
            Route("/system/calls/{id}/cancel", self.cancel, methods=["POST"]),
            Route("/system/calls/{id}/replay", self.replay, methods=["POST"]),
        ]

    async def list_calls(self, request: Request) -> Response:
        namespace, limit = await listed(self._access, request), _limit(request)
        query = request.query_params
        status = query.get("status", "")
        if status and status not in STATUSES:
            raise BadRequest(f"status is one of {', '.join(STATUSES)}")
        found = await self._calls.list(
            namespace,
            query.get("function", ""),
            limit,
            status=status,
            cron=query.get("cron", ""),
            trigger=query.get("trigger", ""),
        )
        return json({"items": [call_document(each) for each in found]})

    async def get_call(self, request: Request) -> Response:
        return json(call_document(await self._known(request, "get")))

    async def wait(self, request: Request) -> Response:
        """The record once the call has ended, or as it is when the time is up."""
        record = await self._known(request, "get")
        text = request.query_params.get("timeout", "30")
        try:
            timeout = float(text)
        except ValueError:
            timeout = -1.0
        if not 0 <= timeout <= LONGEST_WAIT:
            raise BadRequest(f"timeout is a number of seconds from 0 to {LONGEST_WAIT:g}")
        found = await _unless_gone(request, self._waits.ended(record.id, timeout))
        return json(call_document(found or record))

    async def cancel(self, request: Request) -> Response:
        record = await self._known(request, "update")
        reason = str((await document_of(request)).get("reason") or "canceled by a user")[:500]
        if not await self._calls.cancel(record.id, reason, self._clock()):
            now = await self._calls.get(record.id)
            raise Conflict(f"call {record.id} has ended already: {now.status if now else 'it is gone'}")
        found = await self._calls.get(record.id)
        return json(call_document(found or record))

    async def replay(self, request: Request) -> Response:
        """A new call with the request of an old one, on a revision where one is given."""
        record = await self._known(request, "create")
        document = await document_of(request)
        revision = document.get("revision") or ""
        if not isinstance(revision, str):
            raise BadRequest("revision is the name of a revision")
        function = self._function(f"{record.namespace}/{record.function}")
        if function is None:
            raise NotFound(f'there is no function "{record.function}" in the namespace "{record.namespace}"')
        kept = await self._calls.request(record.id)
        assert kept is not None
        rules = queueing(function)
        options = Options(
            dead_letter=rules.dead_letter, revision=revision, replay_of=record.id, callback=record.options.callback
        )
        call = NewCall(
            id=uuid.uuid4().hex,
            namespace=record.namespace,
            function=record.function,
            trigger=ASYNC,
            accepted_at=self._clock(),
            request=kept,
            retries=rules.retries,
            max_age=rules.max_age,
            options=options,
        )
        await self._calls.insert([call])
        return json({"callId": call.id}, 202, {"Location": f"/system/calls/{call.id}"})

    async def redrive(self, request: Request) -> Response:
        """Dead letters go back into the queue: `{"calls": [...]}`, or `{"namespace": N, "function": F}` for all of those."""
        caller = await self._caller(request)
        document = await document_of(request)
        namespace, function = document.get("namespace") or "", document.get("function") or ""
        named = document.get("calls") or []
        if not isinstance(named, list) or not all(isinstance(each, str) for each in (*named, namespace, function)):
            raise BadRequest("calls is a list of ids; namespace and function are names")
        if len(named) > MOST_LISTED:
            raise BadRequest(f"at most {MOST_LISTED} calls can be named at once")
        if named:
            found = [each for call in named if (each := await self._calls.get(call)) is not None]
            for space in {each.namespace for each in found} or {""}:
                await self._access.may(caller, "update", space)
            which = Redrive([each.id for each in found])
            ids = await self._calls.redrive(which, self._clock()) if found else []
        else:
            await self._access.may(caller, "update", namespace)
            ids = await self._calls.redrive(Redrive(namespace=namespace, function=function), self._clock(), MOST_LISTED)
        return json({"calls": ids})

    # Who asks, and for what

    async def _caller(self, request: Request) -> Caller:
        return await self._access.caller(request.headers.get("authorization"))

    async def _known(self, request: Request, verb: str) -> CallRecord:
        """The call that the path names, if it exists and the caller may."""
        caller = await self._caller(request)
        name = request.path_params["id"]
        found = await self._calls.get(name)
        if found is None:
            # Whether there is such a call is told to those who may see all.
            await self._access.may(caller, verb, "")
            raise NotFound(f"there is no call {name}")
        await self._access.may(caller, verb, found.namespace)
        return found


async def listed(access: Access, request: Request) -> str:
    """The namespace that a list is asked of ("" is all), by somebody who may."""
    caller = await access.caller(request.headers.get("authorization"))
    namespace = request.query_params.get("namespace", "")
    await access.may(caller, "list", namespace)
    return namespace


async def document_of(request: Request) -> dict[str, Any]:
    """The JSON object of a request's body; empty where there is no body."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_DOCUMENT:
            raise BadRequest(f"the body may have {LARGEST_DOCUMENT} bytes at most")
    if not body:
        return {}
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise BadRequest(f"the body isn't JSON: {error}") from error
    if not isinstance(found, dict):
        raise BadRequest("the body must be a JSON object")
    return found


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", "50")
    if not text.isdecimal() or not 0 < int(text) <= MOST_LISTED:
        raise BadRequest(f"limit is a number from 1 to {MOST_LISTED}")
    return int(text)


async def _unless_gone(request: Request, work: Any) -> Any:
    """The result of `work`, given up when the client leaves."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        return None
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.wait([task, gone])


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue
