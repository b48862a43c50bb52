"""Packages: gzipped tars that are equal byte for byte where their files are equal."""

from __future__ import annotations

import fnmatch
import gzip
import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from faaslite.build.errors import BuildError

__all__ = ["IGNORE_FILE", "MAX_BYTES", "Archive", "pack"]

MAX_BYTES = 256 * 1024 * 1024
"""The package store takes no larger archive."""
IGNORE_FILE = ".faasignore"
_ALWAYS_IGNORED = (
    ".git", ".hg", ".svn", ".venv", "venv", "__pycache__", "*.pyc", ".mypy_cache", ".ruff_cache", ".pytest_cache",
    "node_modules", ".DS_Store", ".secrets", IGNORE_FILE,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive's bytes; `digest` is `sha256:HEX` of them, `files` how many there are inside."""

    data: bytes
    digest: str
    files: int


def pack(source: Path, *, ignore: Sequence[str] = (), keep_all: bool = False, also: Sequence[Path] = ()) -> Archive:
    """Archive a folder, or a single file.

    Patterns of `.faasignore` (one a line, as in a shell; against names and paths) and `ignore` leave files out;
    `keep_all` leaves out nothing; `also` are files and folders beside a single file that go with it. Raises BuildError for links out of the folder, special files,
    unreadable files, nothing at all, and over `MAX_BYTES`.
    """
    patterns: tuple[str, ...] = () if keep_all else (*_ALWAYS_IGNORED, *_ignore_file(source), *ignore)
    raw = io.BytesIO()
    count = size = 0
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, name in _files(source, patterns, also):
            size += _size(path)
            if size > 8 * MAX_BYTES:
                raise BuildError(
                    f"{source} is too large for a package: {path} brings it over {8 * MAX_BYTES >> 20} MiB; leave files out with {IGNORE_FILE}"
                )
            _add(tar, path, name)
            count += 1
    if not count:
        raise BuildError(f"{source} has no files to deploy")
    packed = gzip.compress(raw.getvalue(), compresslevel=6, mtime=0)
    if len(packed) > MAX_BYTES:
        size, limit = len(packed) >> 20, MAX_BYTES >> 20
        raise BuildError(
            f"{source} packs to {size} MiB, over the limit of {limit} MiB; leave files out with {IGNORE_FILE}"
        )
    return Archive(packed, f"sha256:{hashlib.sha256(packed).hexdigest()}", count)


def _ignore_file(source: Path) -> list[str]:
    try:
        lines = (source / IGNORE_FILE).read_text().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [line.strip().rstrip("/") for line in lines if line.strip() and not line.startswith("#")]


def _ignored(name: str, patterns: Sequence[str]) -> bool:
    base = name.rsplit("/", 1)[-1]
    return any(fnmatch.fnmatch(base, each) or fnmatch.fnmatch(name, each) for each in patterns)


def _files(source: Path, patterns: Sequence[str], also: Sequence[Path] = ()) -> Iterator[tuple[Path, str]]:
    """Files (and links) with their names in the archive, sorted, folders implied."""
    if source.is_file():
        for top in sorted((source, *also)):
            if top.is_file():
                yield top, top.name
            else:
                yield from ((path, f"{top.name}/{inner}") for path, inner in _files(top, patterns))
        return
    if not source.is_dir():
        raise BuildError(
            f"{source} doesn't exist" if not source.exists() else f"{source} is neither a file nor a folder"
        )
    found: list[tuple[Path, str]] = []
    for folder, folders, names in os.walk(source):
        relative = Path(folder).relative_to(source)
        folders[:] = [each for each in folders if not _ignored((relative / each).as_posix(), patterns)]
        links = [each for each in folders if (Path(folder) / each).is_symlink()]
        for each in (*names, *links):
            name = (relative / each).as_posix()
            if not _ignored(name, patterns):
                found.append((Path(folder) / each, name))
    yield from sorted(found, key=lambda each: each[1])


def _size(path: Path) -> int:
    """Bytes that it will take; what can't be looked at is complained of when it is added."""
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    info = tarfile.TarInfo(name)
    try:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            info.type, info.linkname = tarfile.SYMTYPE, _inside(path, name)
            tar.addfile(info)
        elif stat.S_ISREG(mode):
            data = path.read_bytes()
            info.size, info.mode = len(data), 0o755 if mode & stat.S_IXUSR else 0o644
            tar.addfile(info, io.BytesIO(data))
        else:
            raise BuildError(f"{path} is neither a file, a folder nor a link; leave it out with {IGNORE_FILE}")
    except OSError as error:
        raise BuildError(f"{path} can't be read: {error.strerror}") from error


def _inside(path: Path, name: str) -> str:
    """The target of a link; BuildError where it leads out of the package."""
    target = os.readlink(path)
    landed = os.path.normpath(os.path.join(os.path.dirname(name), target))
    if os.path.isabs(target) or landed == ".." or landed.startswith("../"):
        raise BuildError(
            f"{path} links out of the package, to {target}; copy the file in, or leave it out with {IGNORE_FILE}"
        )
    return target
