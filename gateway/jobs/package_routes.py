"""`/system/packages/`: archives in and out. Every request is asked who it is from and whether they may."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.errors import BadRequest, NotFound
from faaslite.api.tenancy import BUILDER_ACCOUNT, LAYERS
from gateway.jobs.auth import Access, Caller
from gateway.jobs.packages import Packages, is_digest
from gateway.jobs.replies import Streamed, json

__all__ = ["PackageRoutes"]

PACKAGE_TYPE = "application/x-tar+gzip"


class PackageRoutes:
    def __init__(self, access: Access, packages: Packages) -> None:
        self._access = access
        self._packages = packages

    def routes(self) -> list[Route]:
        return [
            Route("/system/packages/{digest}", self.put_package, methods=["PUT"]),
            Route("/system/packages/{digest}", self.get_package, methods=["GET", "HEAD"]),
        ]

    async def _caller(self, request: Request) -> Caller:
        return await self._access.caller(request.headers.get("authorization"))

    async def put_package(self, request: Request) -> Response:
        caller = await self._caller(request)
        namespace = request.query_params.get("namespace", "")
        await self._access.may(caller, "create", namespace, LAYERS if is_builder(caller, namespace) else "")
        digest = _digest(request)
        try:
            new = await self._packages.put(digest, request.stream(), namespace)
        except ValueError as error:
            raise BadRequest(str(error)) from error
        return json({"digest": digest, "size": self._packages.size(digest)}, 201 if new else 200)

    async def get_package(self, request: Request) -> Response:
        caller = await self._caller(request)
        namespace = request.query_params.get("namespace", "")
        node = self._access.is_node(caller)
        if not node:
            await self._access.may(caller, "get", namespace)
        digest = _digest(request)
        size = self._packages.size(digest)
        # Who may read functions in all namespaces asks without one; a node asks for the namespace of a Pod.
        everything = not namespace and not node
        try:
            theirs = everything or self._packages.owned(digest, namespace)
        except ValueError as error:
            raise BadRequest(str(error)) from error
        if size is None or not theirs:
            raise NotFound(f"there is no package {digest}{f' in the namespace {namespace}' if namespace else ''}")
        headers = {"Content-Length": str(size), "ETag": f'"{digest}"'}
        if request.method == "HEAD":
            return Response(None, 200, headers, PACKAGE_TYPE)
        return Streamed(self._packages.read(digest), headers, PACKAGE_TYPE)


def _digest(request: Request) -> str:
    digest: str = request.path_params["digest"]
    if not is_digest(digest):
        raise BadRequest(f'"{digest}" is not a digest: sha256: and 64 hex digits are expected')
    return digest


def is_builder(caller: Caller, namespace: str) -> bool:
    """Whether it is who build Pods of the namespace act as: that account may bring layers, and do nothing else."""
    return bool(namespace) and caller.name == f"system:serviceaccount:{namespace}:{BUILDER_ACCOUNT}"
