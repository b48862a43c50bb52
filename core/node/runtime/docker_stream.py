"""The engine's endless answers (events, logs, exec), read on the event loop: a thread each would be one too many per container."""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import aiohttp

from core.node.runtime.base import RuntimeFailure, RuntimeUnavailable
from core.upgrade import Refused, Upgraded, ask

__all__ = ["EngineStreams", "frames"]

_HEADER = struct.Struct(">BxxxL")
_NAMES = {0: "stdin", 1: "stdout", 2: "stderr"}


class EngineStreams:
    """`base_url` is `unix:///path` or `tcp://host:port`, as in DOCKER_HOST."""

    def __init__(self, base_url: str) -> None:
        if base_url.startswith("unix://"):
            self._connector: aiohttp.BaseConnector = aiohttp.UnixConnector(base_url.removeprefix("unix://"), limit=0)
            self._root = "http://docker"
        elif base_url.startswith(("tcp://", "http://")):
            self._connector = aiohttp.TCPConnector(limit=0)
            self._root = "http://" + base_url.partition("://")[2]
        else:
            raise RuntimeUnavailable(
                f"the Docker engine at {base_url} can't be used: give unix:///path or tcp://host:port"
            )
        self._session = aiohttp.ClientSession(
            connector=self._connector, timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False
        )

        self._address: tuple[str, int] | str = base_url.removeprefix("unix://")
        if not base_url.startswith("unix://"):
            host, _, port = base_url.partition("://")[2].rstrip("/").rpartition(":")
            self._address = (host.strip("[]"), int(port))

    async def close(self) -> None:
        await self._session.close()

    @property
    def local(self) -> bool:
        """Whether the engine runs on this machine, so that its processes are ours to signal."""
        return isinstance(self._address, str)

    async def hijack(self, path: str, query: Mapping[str, str], body: Any = None) -> Upgraded:
        """A connection that carries a process's streams from here on. Raises `RuntimeFailure`."""
        content = json.dumps(body).encode() if body is not None else b""
        headers = [("Host", "docker"), ("Upgrade", "tcp"), ("Connection", "Upgrade"), ("Content-Type", "application/json"), ("Content-Length", str(len(content)))]  # fmt: skip
        target = f"{path}?{urlencode(query)}" if query else path
        try:
            return await ask(self._address, "POST", target, headers, content)
        except Refused as refused:
            raise RuntimeFailure(f"the Docker engine answered {refused.status} to {path}: {_why(refused.body)}") from refused  # fmt: skip
        except (OSError, ValueError) as error:
            raise RuntimeUnavailable(f"the connection to the Docker engine broke: {error}") from error

    async def ask(self, method: str, path: str, query: Mapping[str, str] | None = None, body: Any = None) -> Any:
        """One JSON answer; None where there is none. Raises `RuntimeFailure`."""
        async with self._open(method, path, query, body) as response:
            text = await response.read()
            return json.loads(text) if text.strip() else None

    @asynccontextmanager
    async def _open(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Any = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            async with self._session.request(method, self._root + path, params=query, json=body) as response:
                if response.status >= 400:
                    said = await response.text()
                    raise RuntimeFailure(f"the Docker engine answered {response.status} to {path}: {said.strip()}")
                yield response
        except aiohttp.ClientError as error:
            raise RuntimeUnavailable(f"the connection to the Docker engine broke: {error}") from error

    async def events(self, filters: Mapping[str, Sequence[str]]) -> AsyncIterator[dict[str, Any]]:
        """The first item is empty: the subscription stands. Ends when the engine ends it."""
        async with self._open("GET", "/events", {"filters": json.dumps(filters)}) as response:
            yield {}
            async for line in response.content:
                if line.strip():
                    yield json.loads(line)

    async def logs(self, container: str, since: str, tty: bool) -> AsyncIterator[tuple[str, bytes]]:
        """(stream, chunk) from `since` (seconds, decimals) on, until the container ends; each chunk begins with its time."""
        query = {"follow": "1", "stdout": "1", "stderr": "1", "timestamps": "1", "since": since}
        async with self._open("GET", f"/containers/{container}/logs", query) as response:
            if tty:
                async for line in response.content:
                    yield "stdout", line
            else:
                async for found in frames(response.content):
                    yield found

    async def exec(
        self, container: str, command: Sequence[str], env: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """`env` is put over the container's own."""
        variables = [f"{name}={value}" for name, value in (env or {}).items()]
        body = {"AttachStdout": True, "AttachStderr": True, "Cmd": list(command), "Env": variables}
        async with self._open("POST", f"/containers/{container}/exec", body=body) as response:
            exec_id = (await response.json())["Id"]
        output = bytearray()
        async with self._open("POST", f"/exec/{exec_id}/start", body={"Detach": False, "Tty": False}) as response:
            async for _, chunk in frames(response.content):
                output += chunk
        async with self._open("GET", f"/exec/{exec_id}/json") as response:
            code = (await response.json())["ExitCode"]
        return int(code if code is not None else -1), bytes(output)


def _why(body: bytes) -> str:
    """The engine's own words."""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, LookupError, TypeError):
        return body.decode("utf-8", "replace").strip()


async def frames(content: aiohttp.StreamReader) -> AsyncIterator[tuple[str, bytes]]:
    """The engine's multiplexed stream: a header of eight bytes (stream, length), then the payload."""
    while True:
        header = await content.read(1)
        if not header:
            return
        header += await content.readexactly(_HEADER.size - 1)
        stream, length = _HEADER.unpack(header)
        yield _NAMES.get(stream, "stdout"), await content.readexactly(length)
