"""Two real gateway workers before one instance: its limit and the namespace's quotas hold over both, and they wake each other's calls.

Each worker is asked on its own socket, so that it is known who has which call.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

FLAGS = ("--workers", "2")
NOISE_ALLOWED = r"(WARNING|ERROR) "
"""A worker is killed, which is worth a warning. A traceback never is (`quiet`)."""

LIMIT = 3
CODE = """
    import json, threading, time

    lock = threading.Lock()
    now = peak = 0

    def handle(event, context):
        global now, peak
        with lock:
            began = time.monotonic()
            now += 1
            peak = max(peak, now)
        time.sleep(float(event.query.get("pause", 0)))
        with lock:
            now -= 1
            found = peak
            if "forget" in event.query:
                peak = 0
        return {"peak": found, "began": began, "ended": time.monotonic()}
"""
# A WebSocket is a call for as long as it is open. Any other call says when it began.
HELD = """
    import time

    async def app(scope, receive, send):
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            while (await receive())["type"] != "websocket.disconnect":
                pass
            return
        began = repr(time.monotonic()).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": began})
"""


class Unix(http.client.HTTPConnection):
    """A connection to one worker's own socket."""

    def __init__(self, path: str) -> None:
        super().__init__("gateway", timeout=30)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)

    def ask(self, path: str) -> tuple[int, dict[str, str], Any]:
        self.request("GET", path)
        reply = self.getresponse()
        text = reply.read()
        fields = {name.lower(): value for name, value in reply.getheaders()}
        return reply.status, fields, json.loads(text) if "json" in fields.get("content-type", "") else text.decode()

    def hold(self, path: str) -> None:
        """A call that an instance of `held` has when this returns; `close` ends it."""
        self.connect()
        self.sock.sendall(
            f"GET {path} HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        assert self.sock.recv(4096).startswith(b"HTTP/1.1 101 ")


@pytest.fixture
def connect(workers: Any) -> Iterator[Callable[[int], Unix]]:
    made: list[Unix] = []

    def open_one(number: int) -> Unix:
        made.append(Unix(str(workers.home / "run" / f"gateway-{number}.sock")))
        return made[-1]

    yield open_one
    for each in made:
        each.close()


@pytest.fixture(scope="module")
def workers(platform: Any, wait_until: Callable[..., Any]) -> Any:
    flags = ("--min", "1", "--max", "1")
    platform.deploy("limited", CODE, *flags, "--concurrency", str(LIMIT))
    platform.deploy("open", CODE, *flags, "--concurrency", "64")
    platform.deploy("held", HELD, *flags, "--concurrency", str(LIMIT))
    for name in ("limited", "open", "held"):
        wait_until(f"an instance of {name}", lambda name=name: platform.call(f"/function/{name}").status == 200)
    return platform


@pytest.fixture
def quota(
    workers: Any, connect: Callable[[int], Unix], wait_until: Callable[..., Any]
) -> Iterator[Callable[..., None]]:
    def annotate(**limits: str | None) -> None:
        annotations = {f"faaslite.dev/{name}": value for name, value in limits.items()}
        patch = {"metadata": {"annotations": annotations}}
        reply = workers.kube("PATCH", "/api/v1/namespaces/default", patch, "application/merge-patch+json")
        assert reply.status == 200, reply.body
        wanted = {
            f'faaslite_namespace_limit{{limit="{name}",namespace="default"}} {value}'
            for name, value in limits.items()
            if value is not None
        }
        for number in (1, 2):
            wait_until("the worker knows it", lambda number=number: wanted <= set(metrics(number).splitlines()))

    def metrics(number: int) -> str:
        try:
            return str(connect(number).ask("/metrics")[2])
        except OSError:  # it was killed, and its successor doesn't listen yet
            return "faaslite_namespace_limit{"

    yield annotate
    annotate(rps=None, concurrency=None)
    for number in (1, 2):
        wait_until("no limit is left", lambda number=number: "faaslite_namespace_limit{" not in metrics(number))
        assert {connect(number).ask("/function/open")[0] for _ in range(5)} == {200}
    assert not [line for line in workers.noise() if "Traceback" in line or "Exception" in line], workers.noise()


def crowd(connect: Callable[[int], Unix], path: str, clients: int, calls: int) -> list[tuple[int, dict[str, str], Any]]:
    """What `clients` on either worker get, each `calls` times without a pause."""

    def client(number: int) -> list[tuple[int, dict[str, str], Any]]:
        connection = connect(number % 2 + 1)
        return [connection.ask(path) for _ in range(calls)]

    with ThreadPoolExecutor(2 * clients) as pool:
        return [each for found in pool.map(client, range(2 * clients)) for each in found]


def test_the_limit_of_an_instance_holds_over_both_and_no_call_fails(connect):
    connect(1).ask("/function/limited?forget=1")
    found = crowd(connect, "/function/limited?pause=0.01", clients=12, calls=15)
    assert [each for each in found if each[0] != 200] == []
    assert max(each[2]["peak"] for each in found) == LIMIT


def test_a_slot_that_is_freed_wakes_who_waits_at_the_other_worker(connect, wait_until):
    watch = connect(2)

    def waits() -> bool:
        text = str(watch.ask("/metrics")[2])
        return any(
            line.startswith("faaslite_function_queue_depth{") and '"held"' in line and line.endswith(" 1")
            for line in text.splitlines()
        )

    gaps = []
    for _ in range(3):
        holders = [connect(1) for _ in range(LIMIT)]
        for each in holders:
            each.hold("/function/held")
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(connect(2).ask, "/function/held")
            wait_until("a call waits at the second worker", waits)
            # That worker asks anew every 0.25 s by itself: by far the most of which is still ahead.
            released = time.monotonic()
            for each in holders:
                each.close()
            status, fields, began = waiting.result()
        assert status == 200
        assert int(fields["x-faaslite-cold-start"]) > 0, "it waited"
        gaps.append(float(began) - released)
    assert min(gaps) < 0.1, gaps


def test_calls_per_second_are_counted_over_both(connect, quota):
    rate = 50
    quota(rps=str(rate))
    time.sleep(1.1)  # the bucket is full
    began = time.monotonic()
    found = crowd(connect, "/function/open", clients=4, calls=50)
    seconds = time.monotonic() - began
    good = sum(status == 200 for status, _, _ in found)
    refused = [each for each in found if each[0] != 200]
    assert rate <= good <= rate + rate * seconds + 1
    assert refused, "400 calls took more than 7 seconds"
    for status, fields, body in refused:
        assert (status, body["error"], fields["retry-after"]) == (429, "QuotaExceeded", "1")
        assert body["message"] == 'the namespace "default" may have 50 calls per second (faaslite.dev/rps)'
        assert body["callId"] == fields["x-call-id"]


def test_calls_in_flight_are_counted_over_both(connect, quota):
    connect(1).ask("/function/open?forget=1")
    quota(concurrency="4")
    found = crowd(connect, "/function/open?pause=0.02", clients=8, calls=10)
    good = [each for each in found if each[0] == 200]
    assert max(body["peak"] for _, _, body in good) == 4
    refused = [each for each in found if each[0] != 200]
    assert {(status, body["error"]) for status, _, body in refused} == {(429, "QuotaExceeded")}
    assert "4 calls in flight (faaslite.dev/concurrency)" in refused[0][2]["message"]


def test_what_a_killed_worker_had_in_flight_counts_no_longer(workers, connect, quota, wait_until):
    quota(concurrency="2")

    def hold() -> None:
        with pytest.raises((OSError, http.client.HTTPException)):
            connect(1).ask("/function/open?pause=20")

    holders = [threading.Thread(target=hold) for _ in range(2)]
    for each in holders:
        each.start()
    in_flight = 'faaslite_function_in_flight{function="open",namespace="default",revision="open-00001"} 2'
    wait_until("both slots are taken", lambda: in_flight in connect(1).ask("/metrics")[2])
    assert connect(2).ask("/function/open")[0] == 429
    os.kill(workers.pid("gateway-1"), signal.SIGKILL)
    for each in holders:
        each.join(10)
    # The kernel closes what a process held one after the other: its connections may go before its mark in the ledger.
    wait_until("its slots are free", lambda: connect(2).ask("/function/open")[0] == 200, 2)
