"""schemathesis makes requests of what the served OpenAPI documents say; none of them may be answered with 5xx, nor by silence, nor leave memory behind.

In the suite: a few operations of every group, with a fixed seed. `SCHEMATHESIS_EXAMPLES=20 pytest tests/integration/apiserver/test_schemathesis.py` tries all of
them with that many requests each (some minutes; `SCHEMATHESIS_SEED` chooses others).
"""

from __future__ import annotations

import http.client
import json
import os
import random
import time
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, given, settings

from tests.integration.apiserver.alone import Alone, leaves_nothing
from tests.integration.apiserver.test_raw_http import Running, running

__all__ = ["running"]

EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "0"))
SEED = os.environ.get("SCHEMATHESIS_SEED", "1")
PER_GROUP = 2
TIMEOUT = 3600 if EXAMPLES else 240
_LONG = ("watch", "exec", "attach", "portforward", "log", "proxy")

schemathesis = pytest.importorskip("schemathesis")


_Request = tuple[str, str, bytes | None, dict[str, str]]


class _Client:
    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)

    def get(self, path: str) -> Any:
        return json.loads(self.call("GET", path, None, {})[1])

    def call(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
        self._connection.request(method, path, body, {"Authorization": "Bearer admin-token", **headers})
        reply = self._connection.getresponse()
        return reply.status, reply.read()

    def close(self) -> None:
        self._connection.close()


def _path(case: Any) -> str:
    path = case.path
    for name, value in (case.path_parameters or {}).items():
        path = path.replace("{" + name + "}", quote(str(value), safe=""))
    query = [
        f"{quote(str(name), safe='')}={quote(_text(value), safe='')}" for name, value in (case.query or {}).items()
    ]
    return f"{path}?{'&'.join(query)}" if query else path


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _headers(case: Any) -> dict[str, str]:
    found = {}
    for name, value in (case.headers or {}).items():
        text = _text(value)
        if (
            text.isascii()
            and text.isprintable()
            and name.lower() not in ("authorization", "content-length", "transfer-encoding")
        ):
            found[name] = text
    return found


@pytest.mark.timeout(TIMEOUT)
def test_no_request_by_the_documents_fails(running: Running, pki) -> None:
    client = _Client(running.plain)
    dice = random.Random(SEED)
    failures: list[str] = []
    asked: list[_Request] = []
    answered: dict[int, int] = {}
    slowest = (0.0, "")

    def run(operation: Any) -> None:
        @settings(max_examples=EXAMPLES or 2, deadline=None, derandomize=True, database=None, phases=(Phase.generate,),
                  verbosity=Verbosity.quiet, suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(case=operation.as_strategy())
        def attempt(case: Any) -> None:
            nonlocal slowest
            path = _path(case)
            if any(f"{each}" in path.rsplit("/", 1)[-1] for each in _LONG) and operation.method.upper() == "GET":
                return  # what has no end isn't asked for
            body = None
            headers = _headers(case)
            if not isinstance(case.body, type(schemathesis.core.NOT_SET)):
                body = (
                    case.body
                    if isinstance(case.body, bytes)
                    else json.dumps(case.body, default=str).encode("utf-8", "replace")
                )
                headers["Content-Type"] = case.media_type or "application/json"
            asked.append((operation.method.upper(), path, body, headers))
            began = time.perf_counter()
            status, text = client.call(operation.method.upper(), path, body, headers)
            taken = time.perf_counter() - began
            slowest = max(slowest, (taken, f"{operation.method} {path}"))
            answered[status] = answered.get(status, 0) + 1
            if status >= 500 and b'"reason":"Timeout"' not in text:  # a resourceVersion of the future is answered 504
                failures.append(f"{operation.method} {path} {headers} {(body or b'')[:600]!r}: {status} {text[:300]!r}")

        attempt()

    try:
        index = client.get("/openapi/v3")["paths"]
        documents = [client.get(each["serverRelativeURL"]) for name, each in index.items() if name != "version"]
        for document in documents:
            operations = [each.ok() for each in schemathesis.openapi.from_dict(document).get_all_operations()]
            for operation in operations if EXAMPLES else dice.sample(operations, min(PER_GROUP, len(operations))):
                run(operation)
    finally:
        client.close()
    assert not failures, "\n".join(failures[:20])
    assert sum(answered.values()) >= len(documents) and set(answered) & {200, 201}, answered
    assert slowest[0] < 10, slowest

    def again(server: Alone) -> None:
        """The same requests, to a server whose memory can be looked at."""
        client = _Client(server.plain)
        try:
            for each in asked:
                client.call(*each)
        finally:
            client.close()

    leaves_nothing(pki, again, len(asked))
