"""hostPath volumes: what is on the node already, checked or made as `type` says."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

from core.node.volumes.base import Prepared, VolumeError, VolumeRequest

__all__ = ["HostPathVolume"]

_TESTS: dict[str, tuple[Callable[[int], bool], str]] = {
    "Directory": (stat.S_ISDIR, "a directory"),
    "DirectoryOrCreate": (stat.S_ISDIR, "a directory"),
    "File": (stat.S_ISREG, "a file"),
    "FileOrCreate": (stat.S_ISREG, "a file"),
    "Socket": (stat.S_ISSOCK, "a socket"),
    "CharDevice": (stat.S_ISCHR, "a character device"),
    "BlockDevice": (stat.S_ISBLK, "a block device"),
}


class HostPathVolume:
    updates = False

    async def prepare(self, request: VolumeRequest) -> Prepared:
        path = Path(str(request.source.get("path", "")))
        _check(path, str(request.source.get("type") or ""))
        return Prepared(path)

    async def release(self, request: VolumeRequest) -> None:
        """It isn't ours."""


def _check(path: Path, kind: str) -> None:
    if not path.is_absolute():
        raise VolumeError(f"hostPath {str(path)!r} isn't absolute")
    if kind == "DirectoryOrCreate":
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
    elif kind == "FileOrCreate":
        path.touch(mode=0o644, exist_ok=True)
    if not kind:
        return
    test, name = _TESTS.get(kind, (None, ""))
    if test is None:
        raise VolumeError(f"unknown hostPath type {kind!r}")
    if not path.exists() or not test(path.stat().st_mode):
        raise VolumeError(f"hostPath {path} isn't {name}")
