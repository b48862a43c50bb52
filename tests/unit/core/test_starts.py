"""Turns: at once where there is no crowd, else clients one after the other."""

from __future__ import annotations

import asyncio

from core.starts import NEWCOMERS, Starts


async def test_without_a_crowd_requests_begin_at_once_and_nobody_is_asked():
    starts, begun = Starts(asyncio.get_running_loop(), 3), []

    def nobody():
        raise AssertionError("asked whose it is")

    for each in range(3):
        starts.begin(nobody, lambda each=each: begun.append(each))
    assert begun == [0, 1, 2]
    await asyncio.sleep(0)
    starts.begin(nobody, lambda: begun.append(3))
    assert begun == [0, 1, 2, 3]
    await asyncio.sleep(0)


async def test_a_crowd_takes_turns():
    starts, begun = Starts(asyncio.get_running_loop(), 2), []
    for each in range(100):
        for who in ("flood", "other flood"):
            starts.begin(lambda who=who: who, lambda who=who, each=each: begun.append((who, each)))
    assert (
        len(begun) == 4 and starts.waiting == 196
    )  # two at once, and the first of each for which somebody had to be asked
    while starts.waiting:
        before = len(begun)
        await asyncio.sleep(0)
        assert len(begun) == before + 1
        assert abs(sum(who == "flood" for who, _ in begun) - len(begun) / 2) <= 1
    for who in ("flood", "other flood"):
        assert [each for name, each in begun if name == who] == list(range(100))
    await asyncio.sleep(0)
    starts.begin(lambda: "flood", lambda: begun.append("again"))
    assert begun[-1] == "again"
    await asyncio.sleep(0)


async def test_who_sends_little_does_not_queue_behind_a_crowd():
    starts, begun = Starts(asyncio.get_running_loop(), 1), []
    for each in range(6):
        starts.begin(lambda: "flood", lambda each=each: begun.append(each))
    assert begun == [0, 1]
    await asyncio.sleep(0)
    for each in range(2):  # the second waits for a turn, as the flood's do
        starts.begin(lambda: "quiet", lambda each=each: begun.append(f"quiet {each}"))
    assert begun == [0, 1, 2, "quiet 0"]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert begun[4:] == [3, "quiet 1"]
    for _ in range(3):
        await asyncio.sleep(0)
    assert begun[6:] == [4, 5] and not starts.waiting


async def test_a_crowd_of_newcomers_does_not_keep_those_who_wait_from_their_turns():
    starts, begun = Starts(asyncio.get_running_loop(), 1), []
    for each in range(4):
        starts.begin(lambda: "flood", lambda: begun.append("flood"))
    for turn in range(2):
        await asyncio.sleep(0)
        before = len(begun)
        for each in range(50):
            who = f"{turn} {each}"
            starts.begin(lambda who=who: who, lambda who=who: begun.append(who))
        assert len(begun) - before == NEWCOMERS
    assert begun.count("flood") == 4
    for _ in range(starts.waiting + 1):
        await asyncio.sleep(0)
    assert not starts.waiting
