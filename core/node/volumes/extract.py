"""Safe extraction of a gzipped tar into a read-only tree.

Only regular files, folders, and links that stay inside are taken. Absolute paths, `..`, devices, pipes, paths through a link,
and repeated names are refused; owners, times, setuid, setgid and sticky bits are dropped. Size and number are limited.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from core.errors import FaasliteError

__all__ = ["BadArchive", "Limits", "extract", "remove_tree"]

_CHUNK = 1 << 18
_READ_ONLY = 0o555


class BadArchive(FaasliteError):
    """The archive is broken, or holds what must not be extracted."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`size` bytes of all files together, `count` entries, `compressed` bytes of the archive itself."""

    size: int = 1 << 30
    count: int = 100_000
    compressed: int = 256 << 20


def extract(archive: IO[bytes], target: Path, limits: Limits) -> int:
    """Extract into `target`, which must not exist; returns the bytes written. Raises `BadArchive`. Blocks."""
    target.mkdir(mode=0o755)
    writer = _Writer(target, limits)
    try:
        with tarfile.open(fileobj=archive, mode="r|gz") as tar:
            for member in tar:
                writer.add(tar, member)
    except (
        tarfile.TarError,
        EOFError,
        zlib.error,
        UnicodeError,
        FileExistsError,
        NotADirectoryError,
        ValueError,
    ) as error:
        raise BadArchive(f"the archive is broken: {error}") from error
    except OSError as error:
        if error.errno is None:  # gzip says so of a bad header or checksum
            raise BadArchive(f"the archive is broken: {error}") from error
        raise
    writer.check_links()
    for folder in reversed(writer.folders):
        os.chmod(folder, _READ_ONLY)
    os.chmod(target, _READ_ONLY)
    return writer.size


class _Writer:
    def __init__(self, root: Path, limits: Limits) -> None:
        self.root = root
        self.limits = limits
        self.size = 0
        self.count = 0
        self.links: set[str] = set()
        self.folders: list[str] = []

    def add(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        self.count += 1
        if self.count > self.limits.count:
            raise BadArchive(f"the archive has more than {self.limits.count} entries")
        path = self._inside(member.name)
        if path == ".":
            return
        self._parents(path)
        full = os.path.join(self.root, path)
        if member.isreg():
            self._file(tar, member, full)
        elif member.isdir():
            self._folder(full)
        elif member.issym():
            self._inside(posixpath.join(posixpath.dirname(path), member.linkname), member.linkname)
            os.symlink(member.linkname, full)
            self.links.add(path)
        elif member.islnk():
            source = self._inside(member.linkname)
            self._through_no_link(source)
            if not os.path.isfile(os.path.join(self.root, source)):
                raise BadArchive(f"{member.name!r} is a link to {member.linkname!r}, which isn't a file before it")
            os.link(os.path.join(self.root, source), full)
        else:
            raise BadArchive(f"{member.name!r} is neither file, folder nor link")

    def check_links(self) -> None:
        """Each link by itself stays inside; through one another they might not (`up -> .`, `out -> up/../..`)."""
        root = os.path.realpath(self.root)
        for each in self.links:
            found = os.path.realpath(os.path.join(root, each))
            if found != root and not found.startswith(root + os.sep):
                raise BadArchive(f"{each!r} leads out of the archive, through another link")

    def _inside(self, name: str, said: str = "") -> str:
        path = posixpath.normpath(name)
        if (said or name).startswith("/") or path == ".." or path.startswith("../") or "\0" in name:
            raise BadArchive(f"{said or name!r} leads out of the archive")
        return path

    def _through_no_link(self, path: str) -> None:
        while path and path != ".":
            if path in self.links:
                raise BadArchive(f"{path!r} is a link and can't hold anything")
            path = posixpath.dirname(path)

    def _parents(self, path: str) -> None:
        parent = posixpath.dirname(path)
        self._through_no_link(parent)
        made = ""
        for part in parent.split("/") if parent else ():
            made = posixpath.join(made, part)
            self._folder(os.path.join(self.root, made))

    def _folder(self, full: str) -> None:
        if not os.path.isdir(full):
            os.mkdir(full, 0o755)
            self.folders.append(full)

    def _file(self, tar: tarfile.TarFile, member: tarfile.TarInfo, full: str) -> None:
        self.size += member.size
        if self.size > self.limits.size:
            raise BadArchive(f"the archive's files are more than {self.limits.size} bytes")
        source = tar.extractfile(member)
        if source is None:
            raise BadArchive(f"{member.name!r} has no content")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(full, flags, 0o600), "wb") as file:
            shutil.copyfileobj(source, file, _CHUNK)
            os.fchmod(file.fileno(), 0o555 if member.mode & 0o111 else 0o444)


def remove_tree(path: Path) -> None:
    """Remove an extracted tree, read-only folders included; nothing happens where there is none. Blocks."""
    for folder, _, _ in os.walk(path):
        os.chmod(folder, 0o700)
    shutil.rmtree(path, ignore_errors=True)
