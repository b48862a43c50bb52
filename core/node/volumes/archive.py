"""Archives as read-only volumes: a node-local cache, addressed by content.

A volume names an archive by its digest (`volumeAttributes: {digest: "sha256:HEX"}`). Each archive is fetched and extracted
once, whatever the number of Pods that ask; its folder is shared by all of them. That a namespace's Pod may have it at all is asked of
the source for each namespace anew, since to know a digest is not to have the content. Folders that no Pod uses stay until the
cache holds more than `keep` bytes, the least recently used go first. `cache_dir` belongs to one agent.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

from core.clock import monotonic
from core.errors import NotFound, ServiceUnavailable
from core.node.volumes.base import POD_NAMESPACE, VolumeError
from core.node.volumes.extract import BadArchive, Limits, extract, remove_tree

__all__ = ["ArchiveVolumes", "Check", "Fetch"]

log = logging.getLogger(__name__)

Fetch = Callable[[str, str], AsyncIterator[bytes]]
"""Digest and namespace -> an async generator of the archive's bytes. It raises `core.errors.NotFound` where the namespace has none such,
`ServiceUnavailable` or an OSError where the source can't be reached."""
Check = Callable[[str, str], Awaitable[None]]
"""Digest and namespace -> nothing where the namespace has that archive; raises as `Fetch`."""

PATIENCE = 3.0
"""Seconds after which it is said that the store doesn't answer: it may be starting beside the node."""
RETRY = 0.1
"""Seconds between tries while the source can't be reached."""

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


class ArchiveVolumes:
    """A `CsiPlugin`. `driver` is the name that it is registered under."""

    def __init__(
        self,
        driver: str,
        fetch: Fetch,
        check: Check,
        cache_dir: Path,
        *,
        keep: int = 2 << 30,
        limits: Limits | None = None,
    ) -> None:
        self.driver = driver
        self._fetch = fetch
        self._check = check
        self._allowed: set[tuple[str, str]] = set()
        self._locks: dict[str, asyncio.Lock] = {}
        self._cache = cache_dir
        self._keep = keep
        self._limits = limits or Limits()
        self._users: dict[str, set[str]] = {}
        self._digests: dict[str, str] = {}
        self._fetching: dict[tuple[str, str], asyncio.Task[Path]] = {}
        self._sizes: dict[str, int] = {}
        self._used: dict[str, float] = {}
        self._opened = False

    async def publish(self, key: str, attributes: Mapping[str, str]) -> Path:
        digest = self._digest(attributes)
        self._use(key, digest)
        place = (digest, attributes.get(POD_NAMESPACE, ""))
        found = self._present(digest)
        if found is not None and place in self._allowed:
            return found
        task = self._fetching.get(place)
        if task is None:
            task = asyncio.create_task(self._get(*place), name=f"fetch {digest[:19]}")
            self._fetching[place] = task
            task.add_done_callback(lambda _: self._fetching.pop(place, None))
        try:
            # Several Pods wait for one fetch; when one of them goes, the others still want it.
            return await asyncio.shield(task)
        except BaseException:
            self._unuse(key)
            if not task.done() and not self._users.get(digest):
                task.cancel()
            raise

    def adopt(self, key: str, attributes: Mapping[str, str]) -> Path | None:
        try:
            digest = self._digest(attributes)
        except VolumeError:
            return None
        self._use(key, digest)
        self._allowed.add((digest, attributes.get(POD_NAMESPACE, "")))
        return self._present(digest)

    async def prefetch(self, attributes: Mapping[str, str]) -> Path:
        key = f"prefetch/{attributes.get('digest', '')}/{attributes.get(POD_NAMESPACE, '')}"
        try:
            return await self.publish(key, attributes)
        finally:
            self._unuse(key)

    async def unpublish(self, key: str) -> None:
        self._unuse(key)
        await self._evict()

    async def close(self) -> None:
        """Cancel what is being fetched."""
        tasks = list(self._fetching.values())
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Inside

    @staticmethod
    def _digest(attributes: Mapping[str, str]) -> str:
        digest = attributes.get("digest", "")
        if not _DIGEST.fullmatch(digest):
            raise VolumeError(f"{digest!r} is no digest (sha256:HEX)", "PackageInvalid")
        return digest

    def _folder(self, digest: str) -> Path:
        return self._cache / digest.removeprefix("sha256:")

    def _present(self, digest: str) -> Path | None:
        folder = self._folder(digest)
        return folder if digest in self._sizes or folder.is_dir() else None

    def _use(self, key: str, digest: str) -> None:
        self._users.setdefault(digest, set()).add(key)
        self._digests[key] = digest
        self._used[digest] = monotonic()

    def _unuse(self, key: str) -> None:
        digest = self._digests.pop(key, None)
        if digest is not None:
            users = self._users.get(digest, set())
            users.discard(key)
            if not users:
                self._users.pop(digest, None)
            self._used[digest] = monotonic()

    async def _get(self, digest: str, namespace: str) -> Path:
        began, warned = monotonic(), False
        while True:
            try:
                async with self._locks.setdefault(digest, asyncio.Lock()):
                    found = self._present(digest)
                    if found is None:
                        found = await self._get_once(digest, namespace)
                    else:
                        await self._check(digest, namespace)
                self._allowed.add((digest, namespace))
                return found
            except NotFound as error:
                raise VolumeError(f"package {digest} isn't in the package store: {error}", "PackageNotFound") from error
            except BadArchive as error:
                raise VolumeError(f"package {digest}: {error}", "PackageInvalid") from error
            except (ServiceUnavailable, ConnectionError, TimeoutError) as error:
                if not warned and monotonic() - began > PATIENCE:
                    log.warning("package %s can't be fetched yet, going on: %s", digest, error)
                    warned = True
                await asyncio.sleep(RETRY)

    async def _get_once(self, digest: str, namespace: str) -> Path:
        if not self._opened:
            await asyncio.to_thread(self._open)
            self._opened = True
        handle, name = tempfile.mkstemp(prefix=".fetch-", dir=self._cache)
        try:
            with os.fdopen(handle, "w+b") as file:
                hashed, size = hashlib.sha256(), 0
                async for chunk in self._fetch(digest, namespace):
                    size += len(chunk)
                    if size > self._limits.compressed:
                        raise BadArchive(f"the archive has more than {self._limits.compressed} bytes")
                    hashed.update(chunk)
                    file.write(chunk)
                if hashed.hexdigest() != digest.removeprefix("sha256:"):
                    raise BadArchive(f"what was fetched has the digest sha256:{hashed.hexdigest()}")
                file.seek(0)
                folder, fresh = self._folder(digest), Path(f"{name}.d")
                extraction = asyncio.ensure_future(asyncio.to_thread(_extract_to, file, fresh, folder, self._limits))
                try:
                    self._sizes[digest] = await asyncio.shield(extraction)
                except BaseException:
                    # A thread can't be cancelled: let it end before the file that it reads and the tree that it writes go.
                    await asyncio.wait([extraction])
                    await asyncio.to_thread(remove_tree, fresh)
                    raise
        finally:
            os.unlink(name)
        await self._evict()
        return folder

    def _open(self) -> None:
        """Make the cache, and clear away what an earlier agent left unfinished."""
        self._cache.mkdir(mode=0o755, parents=True, exist_ok=True)
        for each in self._cache.iterdir():
            if each.name.startswith(".fetch-"):
                if each.is_dir():
                    remove_tree(each)
                else:
                    each.unlink()
            else:
                self._sizes[f"sha256:{each.name}"] = sum(path.lstat().st_size for path in each.rglob("*"))

    async def _evict(self) -> None:
        while sum(self._sizes.values()) > self._keep:
            unused = [each for each in self._sizes if each not in self._users]
            if not unused:
                return
            oldest = min(unused, key=lambda each: self._used.get(each, 0.0))
            del self._sizes[oldest]
            self._locks.pop(oldest, None)
            self._allowed = {each for each in self._allowed if each[0] != oldest}
            self._used.pop(oldest, None)
            # Renamed first, so that a Pod that comes meanwhile fetches it afresh instead of finding half of it.
            doomed = self._cache / f".fetch-{oldest.removeprefix('sha256:')}.gone"
            self._folder(oldest).rename(doomed)
            await asyncio.to_thread(remove_tree, doomed)


def _extract_to(file: object, fresh: Path, folder: Path, limits: Limits) -> int:
    size = extract(file, fresh, limits)  # type: ignore[arg-type]
    os.rename(fresh, folder)
    return size
