"""The routes under `/system/`: packages, cron triggers, call records. Every one asks who it is and whether they may."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from core.clock import micro_time
from core.errors import BadRequest, NotFound
from gateway.jobs.auth import Access, Caller
from gateway.jobs.calls.base import Calls
from gateway.jobs.cron.ticker import Ticker
from gateway.jobs.packages import Packages, is_digest
from gateway.jobs.replies import call_document, json

__all__ = ["Admin"]

PACKAGE_TYPE = "application/x-tar+gzip"
MOST_LISTED = 500


class Admin:
    def __init__(self, access: Access, packages: Packages, calls: Calls, ticker: Ticker) -> None:
        self._access = access
        self._packages = packages
        self._calls = calls
        self._ticker = ticker

    def routes(self) -> list[Route]:
        return [
            Route("/system/packages/{digest}", self.put_package, methods=["PUT"]),
            Route("/system/packages/{digest}", self.get_package, methods=["GET", "HEAD"]),
            Route("/system/cron", self.list_cron, methods=["GET"]),
            Route("/system/calls", self.list_calls, methods=["GET"]),
            Route("/system/calls/{id}", self.get_call, methods=["GET"]),
        ]

    async def _caller(self, request: Request) -> Caller:
        return await self._access.caller(request.headers.get("authorization"))

    async def put_package(self, request: Request) -> Response:
        caller = await self._caller(request)
        await self._access.may(caller, "create", request.query_params.get("namespace", ""))
        digest = _digest(request)
        new = await self._packages.put(digest, request.stream())
        return json({"digest": digest, "size": self._packages.size(digest)}, 201 if new else 200)

    async def get_package(self, request: Request) -> Response:
        caller = await self._caller(request)
        if not self._access.is_node(caller):
            await self._access.may(caller, "get", request.query_params.get("namespace", ""))
        digest = _digest(request)
        size = self._packages.size(digest)
        if size is None:
            raise NotFound(f"there is no package {digest}")
        headers = {"Content-Length": str(size), "ETag": f'"{digest}"'}
        if request.method == "HEAD":
            return Response(None, 200, headers, PACKAGE_TYPE)
        return StreamingResponse(self._packages.read(digest), 200, headers, PACKAGE_TYPE)

    async def list_cron(self, request: Request) -> Response:
        namespace = await self._listed_namespace(request)
        latest = await self._calls.latest_cron()
        items = []
        for trigger, fires in self._ticker.upcoming():
            if namespace and trigger.namespace != namespace:
                continue
            last = latest.get(trigger.key)
            items.append({
                "namespace": trigger.namespace,
                "function": trigger.function,
                "name": trigger.name,
                "schedule": trigger.schedule.text,
                "timeZone": trigger.zone,
                "next": None if fires is None else micro_time(fires),
                "last": last and {"at": micro_time(last.scheduled_at), "status": last.status, "callId": last.id},
                "paused": trigger.paused,
            })  # fmt: skip
        return json({"items": items})

    async def list_calls(self, request: Request) -> Response:
        namespace = await self._listed_namespace(request)
        text = request.query_params.get("limit", "50")
        if not text.isdecimal() or not 0 < int(text) <= MOST_LISTED:
            raise BadRequest(f"limit is a number from 1 to {MOST_LISTED}")
        found = await self._calls.list(namespace, request.query_params.get("function", ""), int(text))
        return json({"items": [call_document(each) for each in found]})

    async def get_call(self, request: Request) -> Response:
        caller = await self._caller(request)
        name = request.path_params["id"]
        found = await self._calls.get(name)
        if found is None:
            # Whether there is such a call is told to those who may see all.
            await self._access.may(caller, "get", "")
            raise NotFound(f"there is no call {name}")
        await self._access.may(caller, "get", found.namespace)
        return json(call_document(found))

    async def _listed_namespace(self, request: Request) -> str:
        caller = await self._caller(request)
        namespace = request.query_params.get("namespace", "")
        await self._access.may(caller, "list", namespace)
        return namespace


def _digest(request: Request) -> str:
    digest: str = request.path_params["digest"]
    if not is_digest(digest):
        raise BadRequest(f'"{digest}" is not a digest: sha256: and 64 hex digits are expected')
    return digest
