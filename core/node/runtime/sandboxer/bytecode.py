"""Compiles the modules of packages before functions are called for, so that a start takes as long for a thousand lines as for ten.

The base process of the runtime forks a child that gives up its privileges, can read the package alone, and says what its modules compile to. It
runs nothing of them. What it says is written beside them (`__pycache__`), where Python looks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
from pathlib import Path

from .node import Node
from .zygotes import Base

__all__ = ["Bytecode", "modules"]

log = logging.getLogger(__name__)
MAX_FILES, MAX_BYTES = 500, 4 << 20
_SECONDS = 60.0
_NOBODY = 65534
_TAG = re.compile(r"[a-z]+-[0-9]+[a-z]*")


def modules(package: str) -> list[str]:
    """The Python files of a folder, relative to it, as many as are worth it. What can't be read has none."""
    found: list[str] = []
    size = 0
    for folder, folders, names in os.walk(package):
        folders[:] = sorted(each for each in folders if each != "__pycache__" and not each.startswith("."))
        for name in sorted(names):
            path = os.path.join(folder, name)
            if not name.endswith(".py") or os.path.islink(path):
                continue
            size += os.path.getsize(path)
            if len(found) == MAX_FILES or size > MAX_BYTES:
                return found
            found.append(os.path.relpath(path, package))
    return found


class Bytecode:
    """Of one node. Each package is compiled once for as long as it is there."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._done: dict[str, int] = {}

    def knows(self, package: str) -> bool:
        """Whether the package was looked at, as one that was at its place before."""
        return package in self._done or not package

    async def compile(self, base: Base, package: str) -> None:
        """Returns when the bytecode is there; where it can't be made, that is logged: imports then compile by themselves."""
        try:
            inode = os.stat(package).st_ino
            if self._done.get(package) == inode:
                return
            self._done[package] = inode
            names = await asyncio.to_thread(modules, package)
            if names:
                async with asyncio.timeout(_SECONDS):
                    await self._compile(base, package, names)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
            log.info("the modules of %s were not compiled: %s", package, error or type(error).__name__)

    async def _compile(self, base: Base, package: str, names: list[str]) -> None:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        stream = asyncio.StreamReader()
        transport, _ = await self._node.loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(reader, "rb", 0)
        )
        try:
            folder = os.open(package, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                isolation = [each for each in ("seccomp", "landlock") if each in self._node.isolation]
                request = {"op": "compile", "names": names, "uid": _NOBODY, "isolation": isolation}
                base.channel.send(request, [folder, writer])
            finally:
                os.close(folder)
                os.close(writer)
            tag = (await _frame(stream)).decode("ascii", "replace")
            if not _TAG.fullmatch(tag):
                raise ValueError(f"{tag!r} is no tag of bytecode")
            for name in names:
                data = await _frame(stream)
                if data:
                    await asyncio.to_thread(_write, Path(package, name), tag, data)
        finally:
            transport.close()


async def _frame(stream: asyncio.StreamReader) -> bytes:
    length = int.from_bytes(await stream.readexactly(4), "big")
    if length > 4 * MAX_BYTES:
        raise ValueError(f"{length} bytes of bytecode")
    return await stream.readexactly(length)


def _write(module: Path, tag: str, data: bytes) -> None:
    """Whole or not at all: somebody may be importing it."""
    folder = module.parent / "__pycache__"
    folder.mkdir(mode=0o755, exist_ok=True)
    place = folder / f"{module.stem}.{tag}.pyc"
    if place.exists():
        return
    unfinished = folder / f".{module.stem}.{os.urandom(4).hex()}"
    try:
        unfinished.write_bytes(data)
        unfinished.chmod(0o644)
        unfinished.rename(place)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise
