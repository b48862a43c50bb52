"""Turns: at once where there is no crowd, else clients one after the other."""

from __future__ import annotations

import asyncio

from core.starts import Starts


async def test_without_a_crowd_requests_begin_at_once_and_nobody_is_asked():
    starts, begun = Starts(asyncio.get_running_loop(), 3, 2), []

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
    starts, begun = Starts(asyncio.get_running_loop(), 2, 2, 2), []
    for each in range(100):
        starts.begin(lambda: "flood", lambda each=each: begun.append(f"flood {each}"))
    starts.begin(lambda: "quiet", lambda: begun.append("quiet"))
    assert begun == ["flood 0", "flood 1"] and starts.waiting == 99
    await asyncio.sleep(0)
    assert begun[2:] == ["flood 2", "quiet"]
    while starts.waiting:
        before = len(begun)
        await asyncio.sleep(0)
        assert len(begun) <= before + 2
    assert [each for each in begun if each != "quiet"] == [f"flood {each}" for each in range(100)]
    await asyncio.sleep(0)
    starts.begin(lambda: "flood", lambda: begun.append("again"))
    assert begun[-1] == "again"
    await asyncio.sleep(0)


async def test_who_is_alone_in_the_crowd_has_more_of_a_turn_until_somebody_comes():
    starts, begun = Starts(asyncio.get_running_loop(), 1, 1, 4), []
    for each in range(12):
        starts.begin(lambda: "flood", lambda each=each: begun.append(each))
    assert begun == [0]
    await asyncio.sleep(0)
    assert begun == [0, 1, 2, 3, 4]
    starts.begin(lambda: "quiet", lambda: begun.append("quiet"))
    await asyncio.sleep(0)
    assert begun[5:] == [5]
    await asyncio.sleep(0)
    assert begun[6:] == ["quiet"]
    for _ in range(3):
        await asyncio.sleep(0)
    assert begun[7:] == list(range(6, 12)) and not starts.waiting
