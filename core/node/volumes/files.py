"""Files of Secrets, ConfigMaps and the like, replaced all at once.

The layout is the kubelet's: `..data` is a link to a folder with a time in its name, every visible name is a link through
`..data`; an update writes a new folder and moves the one link, so that a reader sees the old files or the new, never a mix.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from core.node.volumes.base import VolumeError

__all__ = ["File", "select", "write_files"]

_DATA = "..data"


@dataclass(frozen=True, slots=True)
class File:
    content: bytes
    mode: int


def checked(path: str) -> str:
    """A relative path that stays inside the volume. Raises `VolumeError`."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or parts[0].startswith(".."):
        raise VolumeError(f"the path {path!r} would leave the volume")
    return str(PurePosixPath(*parts))


def select(
    data: Mapping[str, bytes], items: list[dict[str, Any]] | None, mode: int, what: str, optional: bool
) -> dict[str, File]:
    """The files of a source: all keys, or those that `items` name, at their paths. Raises `VolumeError` for a missing key."""
    if not items:
        return {checked(key): File(value, mode) for key, value in data.items()}
    found = {}
    for item in items:
        key = str(item.get("key", ""))
        if key in data:
            found[checked(str(item.get("path", key)))] = File(data[key], int(item.get("mode") or mode))
        elif not optional:
            raise VolumeError(f"{what} has no key {key!r}")
    return found


def write_files(folder: Path, files: Mapping[str, File]) -> bool:
    """Make `folder` hold exactly these files; returns whether anything changed. Blocks: call it in a thread."""
    folder.mkdir(parents=True, exist_ok=True)
    current = folder / _DATA
    if current.is_symlink() and _read(current) == dict(files):
        return False
    fresh = Path(tempfile.mkdtemp(prefix="..", dir=folder))
    fresh.chmod(0o755)
    for path, file in files.items():
        target = fresh / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.content)
        target.chmod(file.mode)
    old = folder / os.readlink(current) if current.is_symlink() else None
    link = folder / f"{fresh.name}.link"
    link.symlink_to(fresh.name)
    link.replace(current)
    _link_names(folder, {PurePosixPath(path).parts[0] for path in files})
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)
    return True


def _link_names(folder: Path, names: set[str]) -> None:
    for name in names:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"{_DATA}/{name}")
    for entry in folder.iterdir():
        if not entry.name.startswith("..") and entry.name not in names:
            entry.unlink()


def _read(data: Path) -> dict[str, File]:
    root = data.resolve()
    return {
        str(path.relative_to(root)): File(path.read_bytes(), path.stat().st_mode & 0o7777)
        for path in root.rglob("*")
        if path.is_file()
    }
