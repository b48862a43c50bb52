"""Tells when files below a folder were saved: inotify(7), no polling."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Callable
from pathlib import Path

__all__ = ["Watch"]

SETTLE_SECONDS = 0.1
"""Editors write a file in several steps."""
_CLOSE_WRITE, _MOVED_TO, _MOVED_FROM, _CREATE, _DELETE, _ISDIR = 0x8, 0x80, 0x40, 0x100, 0x200, 0x40000000
_MASK = _CLOSE_WRITE | _MOVED_TO | _MOVED_FROM | _CREATE | _DELETE
_IGNORED = ("__pycache__", "node_modules", ".git", ".venv", "venv")
_libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """`changed` is called on the event loop once writing has settled. Raises OSError where the kernel has no more watches."""

    def __init__(self, folder: Path, changed: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = changed
        self._timer: asyncio.TimerHandle | None = None
        self._folders: dict[int, str] = {}
        self._descriptor = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self._add(str(folder))
        self._loop.add_reader(self._descriptor, self._readable)

    def _add(self, top: str) -> None:
        for folder, folders, _ in os.walk(top):
            folders[:] = [each for each in folders if each not in _IGNORED]
            number = _libc.inotify_add_watch(self._descriptor, os.fsencode(folder), _MASK)
            if number < 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code), folder)
            self._folders[number] = folder

    def _readable(self) -> None:
        data = os.read(self._descriptor, 1 << 16)
        relevant = False
        while data:
            number, mask, _, length = struct.unpack_from("iIII", data)
            name = os.fsdecode(data[16 : 16 + length].rstrip(b"\0"))
            data = data[16 + length :]
            if name in _IGNORED or name.endswith((".pyc", "~", ".swp", ".swx", ".tmp")) or name.isdigit():
                continue
            if mask & _ISDIR and mask & (_CREATE | _MOVED_TO) and number in self._folders:
                self._add(os.path.join(self._folders[number], name))
            relevant = relevant or not mask & _CREATE or bool(mask & _ISDIR)
        if relevant:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_later(SETTLE_SECONDS, self._changed)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
