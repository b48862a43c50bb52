"""The sandboxer's process: one per node, parent of everything that runs on it.

It is small and keeps running while the node agent is replaced: Pods, their logs and exit codes hang on it. When it ends, they end.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from core.clock import monotonic

from . import isolation
from .ability import find_isolation
from .cgroups import Cgroups, find_cgroups
from .images import find_images, image_root
from .node import Node, Settings
from .server import Connections, DriverConnection
from .service import Service
from .state import FIRST_UID, Processes, UserIds
from .strain import LOOK_SECONDS

__all__ = ["main", "prepare", "run"]

log = logging.getLogger(__name__)
SWEEP_SECONDS = 30.0
_FOLDERS = ("zygotes", "roots")


def prepare(state_dir: Path, without: Iterable[str] = ()) -> tuple[list[str], Cgroups | None, Processes]:
    """All that must happen before there is an event loop or a thread: isolation of this process, and clearing up after the last one.

    Raises BlockingIOError where another sandboxer holds `state_dir`.
    """
    avoided = frozenset(without)
    state_dir.mkdir(parents=True, exist_ok=True)
    lock = os.open(state_dir / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held until this process ends
    isolation.subreaper()
    held = find_isolation(FIRST_UID, avoided)
    name = f"faaslite-{hashlib.sha256(str(state_dir.resolve()).encode()).hexdigest()[:12]}"
    cgroups = None if "cgroup" in avoided else find_cgroups(name)
    if cgroups is not None:
        held.append("cgroup")
    if "user" in held:
        isolation.enter_user_namespace()
    elif "mount" in held:
        isolation.unshare("mount")
    if "mount" in held:
        isolation.make_private()
    processes = Processes(state_dir / "processes.log")
    killed = processes.kill_leftovers()
    if killed:
        log.warning("ended %d processes of an earlier sandboxer", len(killed))
    if cgroups is not None:
        _clear(cgroups)
    _clear_folders(state_dir)
    for each in _FOLDERS:
        (state_dir / each).mkdir(mode=0o711)
    return held, cgroups, processes


def _clear_folders(state_dir: Path) -> None:
    """Remove the folders of zygotes. Mounts go first: a folder that is one can't be removed, and what is mounted isn't ours."""
    for folder in (state_dir.resolve() / each for each in _FOLDERS):
        for place in isolation.mounts_below(str(folder)):
            isolation.detach(place)
        if folder.exists():
            shutil.rmtree(folder, onerror=lambda _, path, error: log.warning("%s was not removed: %s", path, error[1]))


def _clear(cgroups: Cgroups) -> None:
    deadline = monotonic() + 2.0
    for group in cgroups.leftovers():
        group.kill()
        while not group.remove() and monotonic() < deadline:
            time.sleep(0.005)  # killed processes leave a group without a word


async def main(socket_path: Path | str, state_dir: Path | str, *, settings: Settings | None = None, prepared: tuple[list[str], Cgroups | None, Processes] | None = None, stop: asyncio.Event | None = None, on_ready: asyncio.Event | None = None) -> None:  # fmt: skip
    """Serve drivers at the Unix socket `socket_path` until `stop` is set. `state_dir` is this node's folder of ours alone.

    Call it in a process without other threads or children, in the main thread: it moves into a mount namespace and reaps whatever ends.
    """
    folder, path = Path(state_dir), Path(socket_path)
    settings = settings or Settings()
    stop = stop or asyncio.Event()
    held, cgroups, processes = prepared or prepare(folder, settings.without)
    loop = asyncio.get_running_loop()
    user_ids = UserIds(folder / "uids.json")
    node = Node(settings, folder.resolve(), find_images(image_root()), held, user_ids, processes, cgroups, loop)  # noqa: ASYNC240
    connections = Connections()
    service = connections.service = Service(node, connections.push)
    loop.add_signal_handler(signal.SIGCHLD, node.reap)
    path.unlink(missing_ok=True)  # noqa: ASYNC240
    mask = os.umask(0o177)
    try:
        server = await loop.create_unix_server(lambda: DriverConnection(connections), str(path))
    finally:
        os.umask(mask)
    sweeper = asyncio.create_task(_sweep(service))
    looker = asyncio.create_task(_look(service))
    try:
        log.info("sandboxer %d serves %s with %s", os.getpid(), path, " ".join(held))
        if on_ready is not None:
            on_ready.set()
        await stop.wait()
    finally:
        sweeper.cancel()
        looker.cancel()
        server.close()
        await service.stop()
        for each in [*connections.open, *connections.streaming]:
            each.close()
        loop.remove_signal_handler(signal.SIGCHLD)
        node.helpers.shutdown()
        path.unlink(missing_ok=True)  # noqa: ASYNC240
        processes.kill_leftovers()
        processes.close()
        if cgroups is not None:
            _clear(cgroups)
            cgroups.remove()
        _clear_folders(folder)


async def _sweep(service: Service) -> None:
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        service.sweep(monotonic())


async def _look(service: Service) -> None:
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        await service.look()


def run(
    socket_path: Path | str, state_dir: Path | str, settings: Settings | None = None, ready_fd: int | None = None
) -> None:
    """A whole process: until TERM or INT. `ready_fd` gets an `R` once drivers are served, and is closed."""
    settings = settings or Settings()
    prepared = prepare(Path(state_dir), settings.without)

    async def serve() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        ready = asyncio.Event()
        serving = asyncio.create_task(
            main(socket_path, state_dir, settings=settings, prepared=prepared, stop=stop, on_ready=ready)
        )
        if ready_fd is not None:
            waiting = asyncio.create_task(ready.wait())
            await asyncio.wait((serving, waiting), return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if ready.is_set():
                os.write(ready_fd, b"R")
            os.close(ready_fd)
        await serving

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve())
