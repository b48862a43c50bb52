"""`from faaslite.testing import platform`: a pytest fixture that runs functions without a cluster, as `faas dev` does.

def test_orders(platform):
    platform.deploy("app.py", secrets={"db": {"password": "x"}})
    assert platform.call("create-order", json={"sku": "tea"}).json["total"] == 3
    assert [each["status"] for each in platform.step(hours=24)] == ["Succeeded"]      # cron
"""

from __future__ import annotations

import asyncio
import json as json_
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Coroutine, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from faaslite.build.plan import Asked
from faaslite.dev.platform import LocalPlatform

__all__ = ["Platform", "Reply", "platform"]

T = TypeVar("T")


class Reply:
    """What came back; header names are in lower case."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status, self.body = status, body
        self.headers = {name.lower(): value for name, value in headers.items()}

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json_.loads(self.body)


class Platform:
    """The local platform, for code that isn't async. Dependency layers are kept in `$FAASLITE_HOME/layers`, as the command does."""

    def __init__(self) -> None:
        self._lines: list[tuple[str, str]] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faaslite", daemon=True)
        self._thread.start()
        home = Path(os.environ.get("FAASLITE_HOME") or Path.home() / ".faaslite")
        self._cache = home / "layers"
        try:
            self._local = self._run(self._start())
        except BaseException:
            self._end()
            raise

    async def _start(self) -> LocalPlatform:
        local = LocalPlatform(self._cache, say=lambda name, line: self._lines.append((name, line)), retry_delay=0.01)
        await local.start()
        return local

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    @property
    def url(self) -> str:
        return self._local.url

    def deploy(
        self,
        path: str | Path,
        *,
        name: str = "",
        handler: str = "",
        secrets: Mapping[str, Mapping[str, str]] | None = None,
        **spec: Any,
    ) -> list[str]:
        """What `faas deploy PATH` does, with fields of the Function's spec by keyword: the functions' names. Raises BuildError."""
        asked = Asked(name=name, handler=handler, spec=spec, cache=self._cache)
        return self._run(self._local.load(Path(path), asked, secrets))

    def call(
        self,
        name: str,
        body: bytes | str = b"",
        *,
        json: Any = None,
        path: str = "",
        method: str = "",
        headers: Mapping[str, str] | None = None,
        timeout: float = 60.0,
    ) -> Reply:
        """Call a function over HTTP: POST where there is a body, else GET."""
        return self._http(f"/function/{name}{path}", body, json, method, headers or {}, timeout)

    def http(
        self,
        path: str,
        body: bytes | str = b"",
        *,
        json: Any = None,
        method: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """A request to the gateway: a function's route, say."""
        return self._http(path, body, json, method, headers or {}, 60.0)

    def spawn(self, name: str, body: bytes | str = b"", *, json: Any = None) -> str:
        """Call it in the background: the call's id."""
        return str(self._http(f"/async-function/{name}", body, json, "POST", {}, 60.0).json["callId"])

    def wait(self, call_id: str, timeout: float = 30.0) -> dict[str, Any]:
        """The record of a call once it has ended. Raises TimeoutError."""
        until = time.monotonic() + timeout
        while not (found := self._local.calls[call_id])["finishedAt"]:
            if time.monotonic() > until:
                raise TimeoutError(f"call {call_id} is {found['status']} after {timeout:g} s")
            time.sleep(0.01)
        return found

    def calls(self, name: str = "") -> list[dict[str, Any]]:
        """Records of asynchronous and cron calls, the oldest first."""
        return [each for each in list(self._local.calls.values()) if not name or each["function"] == name]

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self._local.clock.now()).astimezone()

    def at(self, moment: datetime) -> list[dict[str, Any]]:
        """Move the clock forward to a moment (with a time zone) and run the cron triggers on the way: their records."""
        return self._run(self._local.step(moment.timestamp() - self._local.clock.now()))

    def step(self, **duration: float) -> list[dict[str, Any]]:
        """`step(hours=1)`: as `at`, by a `timedelta`."""
        return self._run(self._local.step(timedelta(**duration).total_seconds()))

    def logs(self, name: str) -> list[str]:
        """The lines that a function has written."""
        return [line for who, line in list(self._lines) if who == name]

    def close(self) -> None:
        self._run(self._local.stop())
        self._end()

    def _end(self) -> None:
        self._run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _http(
        self, path: str, body: bytes | str, document: Any, method: str, headers: Mapping[str, str], timeout: float
    ) -> Reply:
        data: bytes | None = body.encode() if isinstance(body, str) else body
        headers = dict(headers)
        if document is not None:
            data = json_.dumps(document).encode()
            headers.setdefault("Content-Type", "application/json")
        elif not data:
            data = None
        headers.setdefault("Content-Type", "application/octet-stream")
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method or None)  # noqa: S310 - our own http
        try:
            with urllib.request.urlopen(request, timeout=timeout) as reply:  # noqa: S310
                return Reply(reply.status, dict(reply.headers), reply.read())
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, dict(error.headers), error.read())


@pytest.fixture
def platform() -> Iterator[Platform]:
    """A platform of the test's own, gone afterwards with all that it ran."""
    found = Platform()
    try:
        yield found
    finally:
        found.close()
