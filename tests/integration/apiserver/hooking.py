"""A webhook server over TLS, and configurations that name it."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiohttp import web

from faaslite.launch.pki import Pki

Answer = Callable[[dict], dict]
API = "/apis/admissionregistration.k8s.io/v1"


class Hooks:
    """Answers by path: `answers[path]` is called with the request of a review and returns the response's fields, or bytes for the whole body."""

    def __init__(self, pki: Pki, port: int) -> None:
        self.port = port
        self.bundle = base64.b64encode(pki.ca_file.read_bytes()).decode()
        self.answers: dict[str, Answer] = {}
        self.seen: list[tuple[str, dict]] = []
        self.together = 0
        self.most = 0
        self.gate: asyncio.Event | None = None

    async def handle(self, request: web.Request) -> web.Response:
        review = await request.json()
        asked = review["request"]
        self.seen.append((request.path, asked))
        self.together += 1
        self.most = max(self.most, self.together)
        try:
            if self.gate is not None:
                await self.gate.wait()
        finally:
            self.together -= 1
        found = self.answers.get(request.path, lambda _: {"allowed": True})(asked)
        if isinstance(found, web.Response):
            return found
        if asyncio.iscoroutine(found):
            found = await found
        return web.json_response({**review, "response": {"uid": asked["uid"], **found}, "request": None})

    def hook(
        self, path: str, *, operations=("*",), resources=("configmaps",), groups=("",), versions=("v1",), **more
    ) -> dict:
        rule = {
            "operations": list(operations),
            "apiGroups": list(groups),
            "apiVersions": list(versions),
            "resources": list(resources),
        }
        client = {"url": f"https://127.0.0.1:{self.port}/{path}", "caBundle": self.bundle}
        return {
            "name": f"{path}.hooks.dev",
            "clientConfig": client,
            "rules": [rule],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            **more,
        }


def patches(*operations: dict) -> dict:
    return {
        "allowed": True,
        "patchType": "JSONPatch",
        "patch": base64.b64encode(json.dumps(operations).encode()).decode(),
    }


def configuration(kind: str, name: str, *hooks: dict) -> tuple[str, dict]:
    """Path and body."""
    return f"{API}/{kind.lower()}webhookconfigurations", {"metadata": {"name": name}, "webhooks": list(hooks)}


@pytest.fixture
async def hooks(tmp_path: Path) -> AsyncIterator[Hooks]:
    pki = Pki(tmp_path / "hook-pki")
    pki.folder.mkdir()
    pki.prepare(["127.0.0.1", "hook.default.svc"], [])
    app = web.Application()
    runner = web.AppRunner(app)
    served = Hooks(pki, 0)
    app.router.add_post("/{path:.*}", served.handle)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=pki.server_context("apiserver"))
    await site.start()
    served.port = runner.addresses[0][1]
    yield served
    await runner.cleanup()
