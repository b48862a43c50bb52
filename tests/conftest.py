"""What holds for every test: it leaves no process, no socket and no task behind, and engines are there in CI."""

from __future__ import annotations

import asyncio
import asyncio.runners
import gc
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

_PATIENCE = 10.0
"""Seconds that the kernel may take to end what a test has let go of."""


_KERNEL_LISTS = Path(f"/proc/self/task/{os.getpid()}/children").exists()


def _children() -> dict[int, str]:
    """Processes below this one, without the helper that `multiprocessing` keeps for itself."""
    found = {}
    for pid in _below(os.getpid()):
        try:
            each = psutil.Process(pid)
            line = " ".join(each.cmdline()) or each.name()
            if each.status() != psutil.STATUS_ZOMBIE and "multiprocessing" not in line:
                found[pid] = line
        except psutil.NoSuchProcess:
            continue
    return found


def _below(pid: int) -> list[int]:
    """The processes below one, by the kernel's own lists where it has them: psutil reads every process of the machine, twice a test."""
    if not _KERNEL_LISTS:
        return [each.pid for each in psutil.Process(pid).children(recursive=True)]
    found = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return []
    for thread in threads:
        try:
            children = [int(each) for each in Path(f"/proc/{pid}/task/{thread}/children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
        for each in children:
            found += [each, *_below(each)]
    return found


def _sockets() -> set[str]:
    found = set()
    for each in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(each)
        except FileNotFoundError:
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail the test that leaves a task, a process or a socket behind.

    Tasks are those that its event loop still had to cancel when it was closed.
    """
    leaked_tasks: list[str] = []
    cancel_all = asyncio.runners._cancel_all_tasks  # type: ignore[attr-defined]

    def recording(loop: asyncio.AbstractEventLoop) -> None:
        leaked_tasks.extend(repr(task) for task in asyncio.all_tasks(loop))
        cancel_all(loop)

    monkeypatch.setattr(asyncio.runners, "_cancel_all_tasks", recording)
    processes, sockets = _children(), _sockets()
    yield
    left: dict[str, object] = {}
    deadline = time.monotonic() + _PATIENCE
    while True:
        gc.collect(0)
        left = {
            "processes": {pid: line for pid, line in _children().items() if pid not in processes},
            "sockets": sorted(_sockets() - sockets),
        }
        if not any(left.values()) or time.monotonic() > deadline:
            break
        gc.collect()
        time.sleep(0.02)
    left["tasks"] = leaked_tasks
    if any(left.values()):
        pytest.fail(f"the test left something behind: { {key: value for key, value in left.items() if value} }")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Iterator[None]:
    """What collecting makes stays (modules and tests) or holds no cycles (syntax trees): looking through it again and again costs a third of
    the time, and then some at each collection that a test asks for."""
    gc.disable()
    try:
        yield
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def pytest_configure(config: pytest.Config) -> None:
    """Tests are marked for the engine they need; a missing engine skips them for a user and fails them in CI."""
    config.stash[_IN_CI] = bool(os.environ.get("CI"))


_IN_CI = pytest.StashKey[bool]()


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path leaves room for the names of Unix sockets, however deep pytest's own is."""
    with tempfile.TemporaryDirectory(prefix="faas-") as folder:
        yield Path(folder)


@pytest.fixture
def needs(request: pytest.FixtureRequest):  # type: ignore[no-untyped-def]
    """`needs(found, "redis-server", "apt-get install redis-server")`: skip with the reason, or fail in CI."""

    def check(found: object, what: str, remedy: str) -> None:
        if not found:
            say = pytest.fail if request.config.stash[_IN_CI] else pytest.skip
            say(f"{what} is missing: {remedy}")

    return check
