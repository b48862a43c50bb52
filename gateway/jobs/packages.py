"""The package store: archives in a folder, each under the digest of its bytes, whole or not there at all.

A file's modification time is when it was last known to be of use: stored, uploaded again, or found referenced by a collection.

A package belongs to the namespaces that have uploaded it: to know a digest is not to have the content. Who has it is an empty file,
`OWNERS/NAMESPACE/DIGEST`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from core.errors import FaasliteError
from gateway.jobs.archive import check

__all__ = ["ANYBODY", "DigestMismatch", "Packages", "PayloadTooLarge", "is_digest", "unused"]

LARGEST = 256 << 20
"""Bytes of an archive, unless the store is told otherwise."""
KEPT = 7 * 86400.0
"""Seconds that a package stays after it was last known to be of use: long enough to take back a rollout, or a deletion."""
SLICE = 1 << 20
"""Bytes gathered before a thread is asked to write them."""

ANYBODY = ""
"""As a namespace: every one."""
_EVERY = "_all"
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...


class PayloadTooLarge(FaasliteError):
    """The upload is over the limit."""


class DigestMismatch(FaasliteError):
    """The bytes have another digest than the one they were sent under."""


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def unused(stored: Mapping[str, float], referenced: Collection[str], now: float, kept: float = KEPT) -> list[str]:
    """The digests to delete: `stored` maps each to when it was last of use. Pure; times in seconds."""
    return sorted(each for each, used in stored.items() if each not in referenced and now - used > kept)


class Packages:
    """The folder is made where it is missing. Half-done uploads of a process that died are removed by `start`."""

    def __init__(self, folder: Path, *, largest: int = LARGEST) -> None:
        self.folder = folder
        self.owners = folder.with_name(f"{folder.name}-owners")
        self.largest = largest

    async def start(self) -> None:
        await asyncio.to_thread(self._prepare)

    def _prepare(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for each in self.folder.glob("*.part"):
            each.unlink()
        if not self.owners.exists():
            # Packages from before they had owners were anybody's who knew the digest, and stay so.
            self.owners.mkdir(mode=0o700)
            for digest in self.stored():
                self._give(digest, ANYBODY)

    def _mark(self, digest: str, namespace: str) -> Path:
        if namespace and not _NAMESPACE.fullmatch(namespace):
            raise ValueError(f'"{namespace}" is not the name of a namespace')
        return self.owners / (namespace or _EVERY) / self.path(digest).name.removesuffix(".tar.gz")

    def _give(self, digest: str, namespace: str) -> None:
        mark = self._mark(digest, namespace)
        mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mark.touch(mode=0o600)

    def owned(self, digest: str, namespace: str) -> bool:
        """Whether the namespace has that package. ValueError for what is no digest or no namespace."""
        return self._mark(digest, ANYBODY).exists() or (namespace != ANYBODY and self._mark(digest, namespace).exists())

    def path(self, digest: str) -> Path:
        """Where that package is, if it is there. ValueError for what is no digest (and so might be any path)."""
        if not is_digest(digest):
            raise ValueError(f'"{digest}" is not a digest: sha256: and 64 hex digits are expected')
        return self.folder / f"{digest.replace(':', '-')}.tar.gz"

    def size(self, digest: str) -> int | None:
        """Bytes, None where it isn't there."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            return None

    async def put(self, digest: str, chunks: AsyncGenerator[bytes, None], namespace: str = ANYBODY) -> bool:
        """Store an archive for a namespace; whether it is new to it. On disk, with its name, when this returns. Whoever uploads what is there
        already has to show that they have it.

        Raises `PayloadTooLarge`, `DigestMismatch`, `gateway.jobs.archive.ArchiveInvalid`; then nothing is kept.
        """
        target = self.path(digest)
        self._mark(digest, namespace)
        if await asyncio.to_thread(_touch, target):
            found = await self._receive(chunks, len)
            if found != digest:
                raise DigestMismatch(f"the archive's digest is {found}, it was sent as {digest}")
            new = not self.owned(digest, namespace)
            await asyncio.to_thread(self._give, digest, namespace)
            return new
        descriptor, name = tempfile.mkstemp(".part", "upload-", self.folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                found = await self._receive(chunks, file.write)
                if found != digest:
                    raise DigestMismatch(f"the archive's digest is {found}, it was sent as {digest}")
                await asyncio.to_thread(_finish, file.fileno(), file.flush, Path(name))
            await asyncio.to_thread(_publish, Path(name), target)
            await asyncio.to_thread(self._give, digest, namespace)
        except BaseException:
            await asyncio.to_thread(Path(name).unlink, missing_ok=True)
            raise
        return True

    async def _receive(self, chunks: AsyncGenerator[bytes, None], write: Callable[[bytes], int]) -> str:
        digest = hashlib.sha256()
        size = 0
        pending = bytearray()
        async with contextlib.aclosing(chunks):
            async for chunk in chunks:
                size += len(chunk)
                if size > self.largest:
                    raise PayloadTooLarge(f"a package may have {self.largest} bytes at most")
                pending += chunk
                if len(pending) >= SLICE:
                    await asyncio.to_thread(_absorb, bytes(pending), digest, write)
                    pending.clear()
        await asyncio.to_thread(_absorb, bytes(pending), digest, write)
        return f"sha256:{digest.hexdigest()}"

    async def read(self, digest: str) -> AsyncGenerator[bytes, None]:
        """The archive in slices. Raises FileNotFoundError."""
        file = await asyncio.to_thread(self.path(digest).open, "rb")
        try:
            while data := await asyncio.to_thread(file.read, SLICE):
                yield data
        finally:
            file.close()

    def stored(self) -> dict[str, float]:
        """Every digest, and when it was last of use (seconds since the epoch)."""
        found = {}
        for each in self.folder.glob("sha256-*.tar.gz"):
            digest = each.name.removesuffix(".tar.gz").replace("-", ":", 1)
            if is_digest(digest):
                found[digest] = each.stat().st_mtime
        return found

    def collect(self, referenced: Iterable[str], now: float, kept: float = KEPT) -> list[str]:
        """Delete what no Function refers to for long; returns the digests. It blocks: call it in a thread."""
        wanted = {each for each in referenced if is_digest(each)}
        for digest in wanted:
            _touch(self.path(digest), now)
        gone = unused(self.stored(), wanted, now, kept)
        for digest in gone:
            self.path(digest).unlink(missing_ok=True)
            for mark in self.owners.glob(f"*/{self.path(digest).name.removesuffix('.tar.gz')}"):
                mark.unlink(missing_ok=True)
        return gone


def _touch(path: Path, now: float | None = None) -> bool:
    """Whether it was there."""
    at = time.time() if now is None else now
    try:
        os.utime(path, (at, at))
    except FileNotFoundError:
        return False
    return True


def _absorb(data: bytes, digest: _Hash, write: Callable[[bytes], int]) -> None:
    digest.update(data)
    write(data)


def _finish(descriptor: int, flush: Callable[[], None], path: Path) -> None:
    flush()
    check(path)
    os.fsync(descriptor)


def _publish(path: Path, target: Path) -> None:
    os.replace(path, target)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
