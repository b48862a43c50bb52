from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from core.clock import parse_time
from core.node.logs import LogOptions, last_lines, read_logs
from core.node.server import log_options

LINES = [f"2024-01-01T00:00:0{each}.5Z stdout F line {each}" for each in range(5)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "0.log"
    found.write_text("\n".join(LINES) + "\n")
    return found


def ended(is_set: bool = True) -> asyncio.Event:
    found = asyncio.Event()
    if is_set:
        found.set()
    return found


async def read(file: Path, **options: object) -> str:
    return b"".join([each async for each in read_logs(file, LogOptions(**options), ended())]).decode()  # type: ignore[arg-type]


async def test_options(file: Path) -> None:
    assert await read(file) == "".join(f"line {each}\n" for each in range(5))
    assert await read(file, tail=2) == "line 3\nline 4\n"
    assert await read(file, tail=0) == ""
    assert await read(file, since=parse_time("2024-01-01T00:00:03Z")) == "line 3\nline 4\n"
    assert await read(file, limit=8) == "line 0\nl"
    assert (await read(file, timestamps=True, tail=1)) == "2024-01-01T00:00:04.5Z line 4\n"


async def test_partial_lines_are_joined(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_text("T stdout P one \nT stdout F line\n")
    assert await read(path) == "one line\n"


async def test_follow_ends_with_the_container_and_misses_nothing(file: Path) -> None:
    end = ended(False)
    stream = read_logs(file, LogOptions(follow=True, tail=1), end)
    assert await anext(stream) == b"line 4\n"
    with file.open("a") as opened:
        opened.write("T stdout F more\n")
    async with asyncio.timeout(5):
        assert await anext(stream) == b"more\n"
        with file.open("a") as opened:
            opened.write("T stdout F last\n")
        end.set()
        assert [each async for each in stream] == [b"last\n"]


async def test_follower_that_goes_leaves_nothing_open(file: Path) -> None:
    stream = read_logs(file, LogOptions(follow=True), ended(False))
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]


def test_last_lines(file: Path) -> None:
    assert last_lines(file).splitlines()[-1] == "line 4"
    file.write_text("".join(f"T stderr F {'x' * 99}\n" for _ in range(200)))
    assert len(last_lines(file)) <= 2048
    assert last_lines(file.with_name("none")) == ""


def test_options_from_a_query() -> None:
    found = log_options(
        {"follow": "true", "tailLines": "3", "sinceSeconds": "10", "limitBytes": "5", "timestamps": "1"}, 100.0
    )
    assert found == LogOptions(True, True, 90.0, 3, 5)
    for bad in ({"tailLines": "x"}, {"tailLines": "-1"}, {"sinceTime": "never"}):
        with pytest.raises(ValueError):
            log_options(bad, 0.0)
