"""Whether an archive is one that a node may unpack: a gzipped tar of plain files, folders and links that stay inside.

Names are judged as they are written, without unpacking anything. No entry may lie below a link, and a link may climb with `..`
only at its beginning: then no chain of links can leave the folder either.
"""

from __future__ import annotations

import gzip
import posixpath
import tarfile
import zlib
from pathlib import Path
from typing import IO, Any, cast

from core.errors import FaasliteError

__all__ = ["ArchiveInvalid", "check"]

LARGEST_UNPACKED = 1 << 30
"""Bytes that an archive may unpack to."""
MOST_ENTRIES = 100_000
LARGEST_HEADER = 1 << 20
"""Bytes of an extended header (a long name): `tarfile` holds it in memory."""
_EXTENDED = frozenset(
    (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
)


class ArchiveInvalid(FaasliteError):
    """Why an archive is refused, with the name of the entry at fault."""


class _Bounded:
    """A reader that refuses to give more than an archive may unpack to."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._left = LARGEST_UNPACKED

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise ArchiveInvalid(f"the archive unpacks to more than {LARGEST_UNPACKED >> 20} MiB")
        return data


class _Entry(tarfile.TarInfo):
    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Entry:
        found = super().frombuf(buf, encoding, errors)
        if found.type in _EXTENDED and found.size > LARGEST_HEADER:
            raise ArchiveInvalid(f"an extended header of {found.size} bytes is too large")
        return found


def check(path: Path) -> None:
    """Reads the whole archive, its checksum included. Raises `ArchiveInvalid`."""
    names: dict[str, bytes] = {}
    try:
        with gzip.open(path) as unpacked:
            bounded = _Bounded(cast(IO[bytes], unpacked))
            with tarfile.open(fileobj=cast(IO[bytes], bounded), mode="r|", tarinfo=_Entry) as archive:
                for count, entry in enumerate(archive, 1):
                    if count > MOST_ENTRIES:
                        raise ArchiveInvalid(f"the archive has more than {MOST_ENTRIES} entries")
                    _check_entry(entry, names)
                    cast(Any, archive).members = []  # or it would remember them all
            while bounded.read(1 << 16):
                pass
    except (tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError) as error:
        raise ArchiveInvalid(f"not a gzipped tar archive: {error}") from error
    links = {name for name, kind in names.items() if kind == tarfile.SYMTYPE}
    if links:
        for name in names:
            _check_above(name, links)


def _check_entry(entry: tarfile.TarInfo, names: dict[str, bytes]) -> None:
    name = entry.name
    parts = name.split("/")
    if name.startswith("/") or "\0" in name:
        raise ArchiveInvalid(f'"{name}" is an absolute path')
    if ".." in parts:
        raise ArchiveInvalid(f'"{name}" leaves the archive')
    if entry.issym():
        _check_link(name, entry.linkname)
    elif entry.islnk():
        if entry.linkname.startswith("/") or ".." in entry.linkname.split("/"):
            raise ArchiveInvalid(f'"{name}" is a link out of the archive, to "{entry.linkname}"')
    elif not (entry.isdir() or entry.type in (tarfile.REGTYPE, tarfile.AREGTYPE)):
        raise ArchiveInvalid(f'"{name}" is neither a file, a folder nor a link')
    plain = posixpath.normpath(name)
    if plain == "." and not entry.isdir():
        raise ArchiveInvalid(f'"{name}" is the root of the archive and no folder')
    if plain in names and not (entry.isdir() and names[plain] == tarfile.DIRTYPE):
        raise ArchiveInvalid(f'"{name}" is there twice')
    names[plain] = entry.type


def _check_link(name: str, target: str) -> None:
    parts = [each for each in target.split("/") if each not in ("", ".")]
    climbs = 0
    while climbs < len(parts) and parts[climbs] == "..":
        climbs += 1
    depth = len(posixpath.normpath(name).split("/")) - 1
    if not target or target.startswith("/") or climbs > depth or ".." in parts[climbs:]:
        raise ArchiveInvalid(f'"{name}" is a link out of the archive, to "{target}"')


def _check_above(name: str, links: set[str]) -> None:
    above = posixpath.dirname(name)
    while above:
        if above in links:
            raise ArchiveInvalid(f'"{name}" lies below the link "{above}"')
        above = posixpath.dirname(above)
