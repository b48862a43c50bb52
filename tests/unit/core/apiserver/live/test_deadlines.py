"""Nothing hangs: requests have a minute, or what they ask for."""

from __future__ import annotations

import asyncio
import json

import pytest

from core.apiserver import deadlines, dispatch
from core.apiserver.deadlines import Deadlines, seconds_of
from core.errors import BadRequest
from tests.unit.core.apiserver.live.test_edge import CM, _nothing_more, _scope


@pytest.mark.parametrize(
    ("text", "seconds"), [("1s", 1), ("1m30s", 90), ("500ms", 0.5), ("1.5h", 5400), ("10us", 1e-5), ("0s", 0)]
)
def test_durations(text, seconds):
    assert seconds_of(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "1", "s", "1x", "1s ", "-1s", "1s2"])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="is no duration"):
        seconds_of(text)


async def test_the_least_of_what_is_asked_and_a_minute():
    made = Deadlines()
    info = dispatch.parse("GET", CM, {})
    assert made.begin(info, {}, 100.0).at == 160.0
    assert made.begin(info, {"timeout": "5s"}, 100.0).at == 105.0
    assert made.begin(info, {"timeout": "5m"}, 100.0).at == 160.0
    assert made.begin(info, {"timeout": "0s"}, 100.0).at == 160.0
    assert made.begin(dispatch.parse("GET", CM, {"watch": "1"}), {"timeout": "5s"}, 100.0) is None
    assert made.begin(dispatch.parse("GET", f"{CM[:-10]}pods/x/log", {}), {}, 100.0) is None
    with pytest.raises(BadRequest, match="invalid timeout specified in the request URL"):
        made.begin(info, {"timeout": "soon"}, 100.0)
    made.stop()


async def _exchange(api, scope, receive=_nothing_more):
    sent = []

    async def send(message):
        sent.append(message)

    async with asyncio.timeout(10):
        await api(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])


async def test_what_hangs_is_answered_504(api, monkeypatch):
    async def hangs(user, info):
        await asyncio.Event().wait()

    monkeypatch.setattr(api._authorizer, "check", hangs)
    status, told = await _exchange(api, _scope(query=b"timeout=10ms"))
    assert (status, told["reason"], told["code"]) == (504, "Timeout", 504)
    assert not api._deadlines._running


async def test_a_slow_body_is_answered_504(api):
    trickle = iter([{"type": "http.request", "body": b"{", "more_body": True}])

    async def receive():
        return next(trickle, None) or await _nothing_more()

    status, _ = await _exchange(api, _scope("POST", query=b"timeout=10ms"), receive)
    assert status == 504


async def test_a_cancelled_request_is_not_taken_for_a_late_one(api, monkeypatch):
    begun = asyncio.Event()

    async def hangs(user, info):
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(api._authorizer, "check", hangs)
    task = asyncio.create_task(_exchange(api, _scope()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_table_and_one_timer():
    now = [0.0]
    made = Deadlines(lambda: now[0])
    begun = asyncio.Event()

    async def waits(at):
        deadline = made.begin(dispatch.parse("GET", CM, {}), {}, at)
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return deadlines.expired(deadline)

    early, late = asyncio.create_task(waits(0.0)), asyncio.create_task(waits(5.0))
    await begun.wait()
    await asyncio.sleep(0)
    made.look(59.0)
    await asyncio.sleep(0)
    assert not early.done()
    made.look(60.0)
    assert await early is True and not late.done()
    made.look(65.0)
    assert await late is True
    made.stop()
