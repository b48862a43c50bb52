"""What isn't a resource: health, version, discovery, OpenAPI, metrics. Starlette serves it; the caller has authorised it."""

from __future__ import annotations

import gzip
import hashlib
import platform
from collections.abc import Awaitable, Callable, Mapping, Sequence
from email.utils import formatdate
from typing import Any
from urllib.parse import urlencode

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from core.api import release
from core.apiserver import discovery, openapi, openapi_pages
from core.apiserver.metrics import Metrics
from core.apiserver.request import ApiRequest, Reply
from core.apiserver.served import Served
from core.clock import wall
from core.errors import api_error

__all__ = ["VERSION", "Check", "build_system", "in_process"]

Check = Callable[[], Awaitable[str]]
"""A part's health: "" where it is well, else what is wrong."""

VERSION = {
    "major": release.MAJOR,
    "minor": release.MINOR,
    "emulationMajor": release.MAJOR,
    "emulationMinor": release.MINOR,
    "minCompatibilityMajor": release.MAJOR,
    "minCompatibilityMinor": str(int(release.MINOR) - 1),
    "gitVersion": release.GIT_VERSION,
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "CPython " + platform.python_version(),
    "platform": f"linux/{platform.machine()}",
}
_encode = msgspec.json.encode
_YEAR = 365 * 24 * 3600
_V2_PROTO = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_EMPTY_V2_PROTO = b"\x0a\x032.0"


def _json(request: Request, document: Any, media_type: str = "application/json") -> Response:
    """With an ETag, so that clients which have it already needn't fetch it again."""
    body = _encode(document)
    tag = f'"{hashlib.sha256(body).hexdigest()[:32].upper()}"'
    headers = {"ETag": tag, "Vary": "Accept", "Cache-Control": "public"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    response = Response(body, headers=headers)
    # Clients compare the type with all of its parameters, so nothing may be added to it.
    response.headers["content-type"] = media_type
    return response


def aggregated_version(accept: str) -> str:
    """`v2` or `v2beta1` where the client prefers aggregated discovery, else ""."""
    for media in accept.split(","):
        parts = [each.strip() for each in media.split(";")]
        if parts[0] not in ("application/json", "*/*"):
            continue
        parameters = dict(each.split("=", 1) for each in parts[1:] if "=" in each)
        if parameters.get("as") == "APIGroupDiscoveryList" and parameters.get("v") in ("v2", "v2beta1"):
            return parameters["v"]
        if "as" not in parameters:
            return ""
    return ""


class _Pages:
    def __init__(self, served: Served, checks: Mapping[str, Check], metrics: Metrics) -> None:
        self._served = served
        self._checks = checks
        self._metrics = metrics
        self._openapi: dict[str, bytes] = {}
        self._openapi_of = -1
        self._digests: dict[str, str] = {}

    async def health(self, request: Request) -> Response:
        """As Kubernetes says it: `ok`, or the list of checks where one has failed or `?verbose` asks for it."""
        one = request.path_params.get("check", "")
        if one and one not in self._checks:
            raise HTTPException(404)
        excluded = request.query_params.getlist("exclude")
        wanted = [each for each in self._checks if each == one or (not one and each not in excluded)]
        found = {each: await self._checks[each]() for each in wanted}
        failed = [name for name, why in found.items() if why]
        if not failed and "verbose" not in request.query_params:
            return PlainTextResponse("ok")
        lines = [f"[-]{name} failed: {why}" if why else f"[+]{name} ok" for name, why in found.items()]
        what = request.url.path.strip("/").split("/")[0]
        lines.append(f"{what} check {'failed' if failed else 'passed'}")
        return PlainTextResponse("\n".join(lines) + "\n", 500 if failed else 200)

    async def version(self, request: Request) -> Response:
        return _json(request, VERSION)

    async def root(self, request: Request) -> Response:
        groups = sorted({each.prefix for each in self._served.kinds()})
        paths = [
            "/.well-known/openid-configuration",
            "/openid/v1/jwks",
            "/api",
            "/apis",
            *groups,
            "/healthz",
            "/livez",
            "/metrics",
            "/openapi/v2",
            "/openapi/v3",
            "/readyz",
            "/version",
        ]
        return _json(request, {"paths": sorted(paths)})

    async def core(self, request: Request) -> Response:
        if version := aggregated_version(request.headers.get("accept", "")):
            found = discovery.aggregated(self._served.kinds(), True, version)
            return _json(request, found, discovery.aggregated_media_type(version))
        return _json(request, discovery.api_versions())

    async def groups(self, request: Request) -> Response:
        if version := aggregated_version(request.headers.get("accept", "")):
            found = discovery.aggregated(self._served.kinds(), False, version)
            return _json(request, found, discovery.aggregated_media_type(version))
        return _json(request, discovery.group_list(self._served.kinds()))

    async def group(self, request: Request) -> Response:
        found = discovery.group(self._served.kinds(), request.path_params["group"])
        if found is None:
            raise HTTPException(404)
        return _json(request, found)

    async def resources(self, request: Request) -> Response:
        where = request.path_params
        found = discovery.resource_list(
            self._served.kinds(), where.get("group", ""), where["version"], self._served.stored_as()
        )
        if found is None:
            raise HTTPException(404)
        return _json(request, found)

    async def openapi_index(self, request: Request) -> Response:
        return _json(request, openapi.index(self._openapi_digests()))

    async def openapi_document(self, request: Request) -> Response:
        """As Kubernetes has it: who names the digest may keep the document for good, who names an old one is led to the new one."""
        at = request.url.path.removeprefix("/openapi/v3/")
        digest = self._openapi_digests().get(at)
        if digest is None:
            raise HTTPException(404)
        named = request.query_params.get("hash", "")
        if named and named != digest:
            return Response(status_code=301, headers={"Location": f"/openapi/v3/{at}?hash={digest}"})
        headers = {"ETag": f'"{digest}"', "Vary": "Accept, Accept-Encoding", "Cache-Control": "public"}
        if named:
            headers |= {"Cache-Control": "public, immutable", "Expires": formatdate(wall() + _YEAR, usegmt=True)}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        packed = self._openapi.get(at)
        if packed is None:
            where = request.path_params
            if "version" in where:
                kinds, schemas = self._served.kinds(), self._served.schemas()
                found = openapi.document(kinds, where.get("group", ""), where["version"], schemas)
            else:
                found = openapi.page_document(at)
            packed = self._openapi[at] = gzip.compress(_encode(found), 6, mtime=0)
        headers["Content-Type"] = "application/json"
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(packed, headers={**headers, "Content-Encoding": "gzip"})
        return Response(gzip.decompress(packed), headers=headers)

    def _openapi_digests(self) -> dict[str, str]:
        """Of all documents, made anew when what is served has changed; then the documents are, too."""
        if self._openapi_of != self._served.changes:
            self._openapi_of = self._served.changes
            self._digests = openapi.digests(self._served.kinds(), self._served.schemas())
            self._openapi.clear()
        return self._digests

    async def openapi_v2(self, request: Request) -> Response:
        """An empty document: what there is to know is in version 3, which clients ask first.

        They ask this one of kinds that version 3 hasn't (lists of anything, kinds that are not there) and take its silence well.
        """
        if "proto-openapi" in request.headers.get("accept", ""):
            return Response(_EMPTY_V2_PROTO, headers={"content-type": _V2_PROTO})
        return _json(
            request,
            {
                "swagger": "2.0",
                "info": {"title": "Kubernetes", "version": VERSION["gitVersion"]},
                "paths": {},
                "definitions": {},
            },
        )

    async def metrics(self, request: Request) -> Response:
        body, media_type = self._metrics.text()
        return Response(body, media_type=media_type)


async def _plain_error(request: Request, error: Exception) -> Response:
    code = error.status_code if isinstance(error, HTTPException) else 500
    text = "404 page not found\n" if code == 404 else "Method Not Allowed\n"
    return PlainTextResponse(text, code)


def build_system(
    served: Served, checks: Mapping[str, Check], metrics: Metrics, others: Sequence[Route] = ()
) -> Starlette:
    """`checks` are those of `/readyz`; `/healthz` and `/livez` ask them too. `others` are pages that somebody else made."""
    pages = _Pages(served, checks, metrics)
    routes = [*others, Route("/", pages.root), Route("/version", pages.version), Route("/metrics", pages.metrics)]
    for name in ("healthz", "livez", "readyz"):
        routes += [Route(f"/{name}", pages.health), Route(f"/{name}/{{check}}", pages.health)]
    routes += [
        Route("/api", pages.core),
        Route("/apis", pages.groups),
        Route("/api/{version}", pages.resources),
        Route("/apis/{group}", pages.group),
        Route("/apis/{group}/{version}", pages.resources),
        Route("/openapi/v2", pages.openapi_v2),
        Route("/openapi/v3", pages.openapi_index),
        Route("/openapi/v3/api/{version}", pages.openapi_document),
        Route("/openapi/v3/apis/{group}/{version}", pages.openapi_document),
        *(Route(f"/openapi/v3/{at}", pages.openapi_document) for at in openapi_pages.pages(())),
        Route("/openapi/v3/apis/{group}", pages.openapi_document),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: _plain_error})


async def in_process(app: Starlette, request: ApiRequest) -> Reply:
    """The same pages for a component of this process. Raises the error that a page's code stands for."""
    info = request.info
    scope = {
        "type": "http",
        "method": info.verb.upper(),
        "path": info.path.rstrip("/") or "/",
        "raw_path": info.path.encode(),
        "query_string": urlencode(request.query).encode(),
        "headers": [(b"accept", request.accept.encode())],
        "http_version": "1.1",
        "scheme": "https",
        "server": ("localhost", 443),
        "client": None,
        "root_path": "",
    }
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    code = sent[0]["status"]
    body = b"".join(each.get("body", b"") for each in sent[1:])
    if code >= 400:
        raise api_error({"message": body.decode().strip()}, code)
    return Reply(body, code=code)
