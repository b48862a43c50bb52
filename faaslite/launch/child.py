"""The child's side of the fork: its log file, its signals, and the life of its components from start to stop."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol

import uvloop

from core.errors import FaasliteError

if TYPE_CHECKING:
    from faaslite.launch.process import ProcessSpec

__all__ = ["Component", "configure_logging", "run_child", "run_components"]

log = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_COLLECTOR_THRESHOLDS = (2000, 20, 100)
"""Of the cyclic collector, instead of (700, 10, 10): what components let go of has few cycles, and a look at everything they hold, which by default comes
every few dozen cold starts, is a pause of tens of milliseconds in a process with many functions."""
_SWITCH_INTERVAL = 0.0005
"""Seconds after which a thread gives up the interpreter to the event loop. Helpers remove the folders and control groups of what has ended: with the
default of 5 ms a call that comes meanwhile waits for as long."""
_LOG_LIMIT = 32 * 1024 * 1024


class Component(Protocol):
    """A part of the platform: see `docs/interfaces.md`."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


Build = Callable[[], Awaitable[Sequence[Component]]]


def run_child(spec: ProcessSpec, report: int, log_file: Path) -> NoReturn:
    """Become the process `spec`. Never returns; `report` gets `R` when it is ready, `E` and a text where it can't be."""
    code = 1
    try:
        os.setpgid(0, 0)
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        libc.prctl(_PR_SET_NAME, f"faas-{spec.name}".encode()[:15])
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        _redirect(log_file)
        configure_logging()
        sys.setswitchinterval(_SWITCH_INTERVAL)
        spec.main(report)
        code = 0
    except FaasliteError as error:
        log.error("%s", error)
        os.write(report, b"E" + str(error).encode()[:4000])
    except BaseException as error:
        log.exception("%s failed", spec.name)
        with suppress(OSError):
            os.write(report, f"X{type(error).__name__}: {error}"[:4000].encode())
    finally:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run_components(build: Build, report: int) -> None:
    """Make and start components on a new event loop, report readiness, and stop them in reverse order at TERM.

    An error of `build` or of a `start` is raised after what had started was stopped.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_live(build, report))


async def _live(build: Build, report: int) -> None:
    loop = asyncio.get_running_loop()
    told_to_stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, told_to_stop.set)
    started: list[Component] = []
    thresholds = gc.get_threshold()
    try:
        for each in await build():
            await each.start()
            started.append(each)
        gc.collect()
        gc.freeze()
        if gc.get_threshold() == thresholds:  # no component has set its own
            gc.set_threshold(*_COLLECTOR_THRESHOLDS)
        os.write(report, b"R")
        await told_to_stop.wait()
    finally:
        for each in reversed(started):
            try:
                await each.stop()
            except Exception:
                log.exception("stopping %s failed", type(each).__name__)


def configure_logging() -> None:
    """One line an entry on standard error, which is the component's log file."""
    level = os.environ.get("FAASLITE_LOG_LEVEL", "INFO").upper()
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    for noisy in ("asyncio", "docker", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _redirect(log_file: Path) -> None:
    """Standard input from nowhere, both outputs into the log; a log grown too large is set aside once."""
    if log_file.exists() and log_file.stat().st_size > _LOG_LIMIT:
        log_file.replace(log_file.with_suffix(".log.1"))
    descriptor = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nowhere, 0), (descriptor, 1), (descriptor, 2)):
        os.dup2(source, target)
    for each in (descriptor, nowhere):
        if each > 2:
            os.close(each)
