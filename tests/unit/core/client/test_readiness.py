from __future__ import annotations

import asyncio
import os
import socket
import stat
from pathlib import Path

import pytest

from core.client import readiness
from core.client.readiness import Hint, HintListener, HintSender


class Heard:
    def __init__(self) -> None:
        self.hints: list[Hint] = []
        self._more = asyncio.Event()

    def __call__(self, hint: Hint) -> None:
        self.hints.append(hint)
        self._more.set()

    async def until(self, count: int) -> list[Hint]:
        async with asyncio.timeout(30):
            while len(self.hints) < count:
                self._more.clear()
                await self._more.wait()
        return self.hints


async def test_everybody_in_the_folder_hears_and_nobody_else_may_speak(tmp_path: Path) -> None:
    first, second = Heard(), Heard()
    listeners = [HintListener(tmp_path, name, heard) for name, heard in (("gateway-1", first), ("gateway-2", second))]
    sender = HintSender(tmp_path)
    sender.send("default/a", "1", "127.64.0.1")
    for each in listeners:
        each.start()
        assert stat.S_IMODE(os.stat(each.path).st_mode) == 0o600
    for heard in (first, second):
        sender.send("default/a", "1", "127.64.0.1")
        assert heard.hints == []
    for heard in (first, second):
        found = await heard.until(2)
        assert {(each.pod, each.uid, each.address) for each in found} == {("default/a", "1", "127.64.0.1")}
    for each in listeners:
        each.stop()
        assert not each.path.exists()
    sender.send("default/a", "1", "")
    sender.close()


async def test_a_listener_takes_the_place_of_a_dead_one_and_senders_find_it(tmp_path: Path) -> None:
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    dead.bind(str(tmp_path / "ready-g.sock"))
    dead.close()
    sender, heard = HintSender(tmp_path), Heard()
    sender.send("default/a", "1", "127.64.0.1")
    listener = HintListener(tmp_path, "g", heard)
    listener.start()
    sender.send("default/b", "2", "127.64.0.2")
    assert [each.pod for each in await heard.until(1)] == ["default/b"]
    listener.stop()
    sender.close()


async def test_a_listener_that_came_as_the_folder_was_read_is_found_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of a folder's last change may be the same before and after."""
    before = os.stat(tmp_path)
    monkeypatch.setattr(readiness, "wall", lambda: before.st_mtime + 0.01)
    sender, heard = HintSender(tmp_path), Heard()
    sender.send("default/a", "1", "127.64.0.1")
    listener = HintListener(tmp_path, "g", heard)
    listener.start()
    os.utime(tmp_path, ns=(before.st_atime_ns, before.st_mtime_ns))
    sender.send("default/b", "2", "127.64.0.2")
    assert [each.pod for each in await heard.until(1)] == ["default/b"]
    listener.stop()
    sender.close()


async def test_what_is_no_hint_or_too_old_is_not_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard()
    listener = HintListener(tmp_path, "g", heard)
    listener.start()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"not a hint", str(listener.path))
    sender = HintSender(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(readiness, "monotonic", lambda: -10.0)
        sender.send("default/old", "1", "127.64.0.1")
    sender.send("default/new", "1", "127.64.0.1")
    assert [each.pod for each in await heard.until(1)] == ["default/new"]
    listener.stop()
    sender.close()


async def test_who_does_not_read_holds_nobody_up(tmp_path: Path) -> None:
    listener, sender = HintListener(tmp_path, "g", lambda hint: None), HintSender(tmp_path)
    listener.start()
    for number in range(5000):
        sender.send(f"default/{number}", "1", "127.64.0.1")
    sender.send("default/gone", "1", "x" * 1_000_000)
    listener.stop()
    sender.close()
