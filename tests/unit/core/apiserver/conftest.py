"""A small server of our documents alone, for the real kubectl to read and to send its bodies to."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from core.api.kinds import BUILT_IN, Kind
from core.apiserver import body, discovery, openapi, patch, schema, table

DEPLOYMENT = Kind("apps", "v1", "Deployment", "deployments", True, ("deploy",), ("scale", "status"), ("all",))
FUNCTION = Kind("faaslite.dev", "v1", "Function", "functions", True, ("fn",), ("status",), ("all",))
FUNCTION_SCHEMA = {
    "type": "object",
    "properties": {
        "spec": {"type": "object", "description": "What to run.", "properties": {"runtime": {"type": "string"}}}
    },
}


@dataclass
class Recorder:
    """The API by pure builders alone. `objects` answers GETs by path; `received` has (method, path, content type, body)."""

    kinds: tuple[Kind, ...] = tuple(dict.fromkeys((*BUILT_IN, DEPLOYMENT, FUNCTION)))
    received: list[tuple[str, str, str, bytes]] = field(default_factory=list)
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    now: float = 0.0
    aggregated: bool = True

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path, content_type = request.path.rstrip("/"), request.headers.get("Content-Type", "")
        if request.method != "GET":
            raw = await request.read()
            self.received.append((request.method, request.path_qs, content_type, raw))
            if request.method == "PATCH":
                old = self.objects[path]
                kind = next(each for each in self.kinds if each.kind == old["kind"])
                self.objects[path] = patch.apply_patch(kind, old, raw, content_type, schema.load())
                return web.json_response(self.objects[path])
            return web.json_response(body.parse(raw, content_type)[0], status=201 if request.method == "POST" else 200)
        if path in ("/api", "/apis"):
            return self._discover(path == "/api", request.headers.get("Accept", ""))
        found = self._read(path, request)
        if found is None:
            return web.json_response(
                {"kind": "Status", "apiVersion": "v1", "reason": "NotFound", "code": 404}, status=404
            )
        return web.json_response(found)

    def _discover(self, core: bool, accept: str) -> web.Response:
        if self.aggregated and discovery.aggregated_media_type() in accept:
            found = web.json_response(discovery.aggregated(self.kinds, core))
            found.headers["Content-Type"] = discovery.aggregated_media_type()
            return found
        return web.json_response(discovery.api_versions() if core else discovery.group_list(self.kinds))

    def _read(self, path: str, request: web.Request) -> dict[str, Any] | None:
        match path.strip("/").split("/"):
            case ["version"]:
                return {"major": "1", "minor": "32", "gitVersion": "v1.32.0"}
            case ["openapi", "v3"]:
                return openapi.index(openapi.digests(self.kinds, {FUNCTION: FUNCTION_SCHEMA}))
            case ["openapi", "v3", "api", version]:
                return openapi.document(self.kinds, "", version)
            case ["openapi", "v3", "apis", group, version]:
                return openapi.document(self.kinds, group, version, {FUNCTION: FUNCTION_SCHEMA})
            case ["api", version]:
                return discovery.resource_list(self.kinds, "", version)
            case ["apis", group, version]:
                return discovery.resource_list(self.kinds, group, version)
        found = self.objects.get(path)
        if found is not None and "as=Table" in request.headers.get("Accept", ""):
            kind = next(each for each in self.kinds if each.kind == found["kind"].removesuffix("List"))
            include = request.query.get("includeObject", "Metadata")
            return table.to_table(kind, found.get("items", [found]), now=self.now, include=include)
        return found


@dataclass
class Kubectl:
    """The real kubectl against the recorder."""

    recorder: Recorder
    binary: str
    home: Path
    server: str

    async def __call__(self, *words: str, stdin: str = "") -> str:
        """Its standard output; AssertionError with what it said where it fails."""
        process = await asyncio.create_subprocess_exec(
            self.binary, f"--server={self.server}", *words,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env={"HOME": str(self.home), "PATH": "/usr/bin:/bin", "KUBECONFIG": str(self.home / "none")},
        )  # fmt: skip
        out, err = await asyncio.wait_for(process.communicate(stdin.encode()), 60)
        assert process.returncode == 0, f"kubectl {' '.join(words)}: {err.decode()}"
        return out.decode()


@pytest.fixture
async def kubectl(tmp_path: Path) -> AsyncIterator[Kubectl]:
    binary = shutil.which("kubectl")
    assert binary is not None, "these tests need kubectl"
    recorder = Recorder()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", recorder.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield Kubectl(recorder, binary, tmp_path, f"http://127.0.0.1:{runner.addresses[0][1]}")
    await runner.cleanup()
