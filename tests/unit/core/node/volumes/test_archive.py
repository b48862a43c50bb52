"""The cache of archives: fetched once, verified, safely extracted, evicted."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.errors import NotFound, ServiceUnavailable
from core.node.volumes.archive import ArchiveVolumes
from core.node.volumes.base import POD_NAMESPACE, VolumeError
from core.node.volumes.extract import BadArchive, Limits, extract, remove_tree


def member(name: str, type_: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname, found.mode = type_, link, mode
    return found


def pack(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return made.getvalue()


def digest(archive: bytes) -> str:
    return f"sha256:{hashlib.sha256(archive).hexdigest()}"


class Source:
    def __init__(self, *archives: bytes) -> None:
        self.archives = {digest(each): each for each in archives}
        self.fetched: list[str] = []
        self.namespaces = {"", "team"}
        self.failures = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = asyncio.Event()

    async def check(self, wanted: str, namespace: str) -> None:
        if namespace not in self.namespaces:
            raise NotFound(f"{namespace} has none")

    async def fetch(self, wanted: str, namespace: str) -> AsyncIterator[bytes]:
        await self.check(wanted, namespace)
        self.fetched.append(wanted)
        self.asked.set()
        await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise ServiceUnavailable("connection refused")
        if wanted not in self.archives:
            raise NotFound("no such package")
        data = self.archives[wanted]
        for at in range(0, len(data), 64):
            yield data[at : at + 64]


def volumes(source: Source, tmp: Path, **options: object) -> ArchiveVolumes:
    return ArchiveVolumes("packages", source.fetch, source.check, tmp / "cache", **options)  # type: ignore[arg-type]


HELLO = pack(
    (member("app.py"), b"print(1)"),
    (member("bin/run", mode=0o4755), b"#!"),
    (member("l", tarfile.SYMTYPE, "app.py"), b""),
)


async def test_published_read_only_and_shared(tmp_path: Path) -> None:
    source = Source(HELLO)
    found = volumes(source, tmp_path)
    paths = await asyncio.gather(*(found.publish(f"u{each}/v", {"digest": digest(HELLO)}) for each in range(5)))
    assert len(set(paths)) == 1
    assert len(source.fetched) == 1
    folder = paths[0]
    assert (folder / "app.py").read_text() == "print(1)"
    assert (folder / "l").resolve() == folder / "app.py"
    assert [oct((folder / each).stat().st_mode & 0o7777) for each in ("app.py", "bin/run", "bin", ".")] == [
        "0o444",
        "0o555",
        "0o555",
        "0o555",
    ]
    assert os.listdir(tmp_path / "cache") == [folder.name]
    remove_tree(folder)


async def test_unreachable_sources_are_tried_again(tmp_path: Path) -> None:
    source = Source(HELLO)
    source.failures = 2
    assert (await volumes(source, tmp_path).publish("u/v", {"digest": digest(HELLO)})).is_dir()
    assert len(source.fetched) == 3


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ("sha256:" + "0" * 64, "PackageNotFound"),
        ("md5:x", "PackageInvalid"),
        ("sha256:../../etc", "PackageInvalid"),
        ("", "PackageInvalid"),
    ],
)
async def test_errors_have_reasons(tmp_path: Path, wanted: str, reason: str) -> None:
    with pytest.raises(VolumeError) as caught:
        await volumes(Source(), tmp_path).publish("u/v", {"digest": wanted})
    assert caught.value.reason == reason


async def test_wrong_bytes_are_refused(tmp_path: Path) -> None:
    source = Source()
    source.archives[digest(HELLO)] = HELLO + b"x"
    with pytest.raises(VolumeError, match="what was fetched has the digest") as caught:
        await volumes(source, tmp_path).publish("u/v", {"digest": digest(HELLO)})
    assert caught.value.reason == "PackageInvalid"
    assert os.listdir(tmp_path / "cache") == []


async def test_to_know_a_digest_is_not_to_have_the_content(tmp_path: Path) -> None:
    """Neither before nor after somebody else's Pod brought it to the node."""
    source = Source(HELLO)
    found = volumes(source, tmp_path)
    theirs = {"digest": digest(HELLO), POD_NAMESPACE: "team"}
    mine = {"digest": digest(HELLO), POD_NAMESPACE: "other"}
    for _ in range(2):
        with pytest.raises(VolumeError) as caught:
            await found.publish("mine/v", mine)
        assert caught.value.reason == "PackageNotFound"
        await found.publish("theirs/v", theirs)
    both = await asyncio.gather(found.publish("m/v", mine), found.publish("t/v", theirs), return_exceptions=True)
    assert isinstance(both[0], VolumeError) and isinstance(both[1], Path)
    source.namespaces.add("other")
    assert await found.publish("mine/v", mine) == both[1]
    assert len(source.fetched) == 1


async def test_a_pod_that_goes_leaves_the_fetch_to_the_others(tmp_path: Path) -> None:
    source = Source(HELLO)
    source.gate.clear()
    found = volumes(source, tmp_path)
    first = asyncio.create_task(found.publish("u1/v", {"digest": digest(HELLO)}))
    second = asyncio.create_task(found.publish("u2/v", {"digest": digest(HELLO)}))
    await source.asked.wait()
    first.cancel()
    source.gate.set()
    assert (await second).is_dir()
    assert len(source.fetched) == 1


async def test_what_was_fetched_ahead_is_there_and_may_be_evicted(tmp_path: Path) -> None:
    archive, other = pack((member("app.py"), b"x" * 100)), pack((member("app.py"), b"y" * 100))
    source = Source(archive, other)
    volumes = ArchiveVolumes("d", source.fetch, source.check, tmp_path, keep=150)
    folder = await volumes.prefetch({"digest": digest(archive)})
    assert await volumes.publish("u/p", {"digest": digest(archive)}) == folder
    assert source.fetched == [digest(archive)]
    await volumes.unpublish("u/p")
    await volumes.prefetch({"digest": digest(other)})
    assert not folder.exists()
    with pytest.raises(VolumeError):
        await volumes.prefetch({"digest": digest(pack())})
    await volumes.close()


async def test_the_last_to_go_cancels_the_fetch(tmp_path: Path) -> None:
    source = Source(HELLO)
    source.gate.clear()
    found = volumes(source, tmp_path)
    task = asyncio.create_task(found.publish("u/v", {"digest": digest(HELLO)}))
    await source.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await found.close()
    assert os.listdir(tmp_path / "cache") == []


async def test_least_recently_used_goes_first_and_what_is_used_stays(tmp_path: Path) -> None:
    archives = [pack((member("f"), bytes([each]) * 1000)) for each in range(3)]
    found = volumes(Source(*archives), tmp_path, keep=2000)
    used, old, new = (digest(each) for each in archives)
    first = await found.publish("u1/v", {"digest": used})
    gone = await found.publish("u2/v", {"digest": old})
    await found.unpublish("u2/v")
    assert gone.is_dir()
    await found.publish("u3/v", {"digest": new})
    assert first.is_dir()
    assert not gone.exists()
    assert (await found.publish("u4/v", {"digest": old})).is_dir()


async def test_a_new_agent_goes_on_with_the_cache(tmp_path: Path) -> None:
    source = Source(HELLO)
    path = await volumes(source, tmp_path).publish("u/v", {"digest": digest(HELLO)})
    (tmp_path / "cache" / ".fetch-left").write_bytes(b"x")
    again = volumes(source, tmp_path)
    assert again.adopt("u/v", {"digest": digest(HELLO)}) == path
    assert await again.publish("u2/v", {"digest": digest(HELLO)}) == path
    assert len(source.fetched) == 1


BAD = {
    "absolute": [(member("/etc/passwd"), b"x")],
    "dots": [(member("../x"), b"x")],
    "hidden dots": [(member("a/../../x"), b"x")],
    "symlink out": [(member("l", tarfile.SYMTYPE, "../x"), b"")],
    "symlink absolute": [(member("l", tarfile.SYMTYPE, "/etc"), b"")],
    "through a symlink": [
        (member("d", tarfile.DIRTYPE), b""),
        (member("l", tarfile.SYMTYPE, "d"), b""),
        (member("l/x"), b"x"),
    ],
    "hard link out": [(member("h", tarfile.LNKTYPE, "../../etc/passwd"), b"")],
    "hard link to a symlink": [(member("l", tarfile.SYMTYPE, "x"), b""), (member("h", tarfile.LNKTYPE, "l"), b"")],
    "device": [(member("dev", tarfile.CHRTYPE), b"")],
    "pipe": [(member("pipe", tarfile.FIFOTYPE), b"")],
    "twice": [(member("a"), b"1"), (member("a"), b"2")],
    "file as folder": [(member("a"), b"1"), (member("a/b"), b"2")],
    "too many": [(member(str(each)), b"") for each in range(12)],
    "too large": [(member("a"), b"x" * 600), (member("b"), b"x" * 600)],
}


@pytest.mark.parametrize("name", BAD)
def test_bad_archives_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadArchive):
        extract(io.BytesIO(pack(*BAD[name])), tmp_path / "out", Limits(size=1000, count=10))
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize(
    "data",
    [b"", b"no gzip", HELLO[: len(HELLO) // 2], gzip.compress(b"no tar")],
    ids=["empty", "no gzip", "cut off", "no tar"],
)
def test_broken_archives_are_refused(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(BadArchive):
        extract(io.BytesIO(data), tmp_path / "out", Limits())


def test_links_through_links_stay_inside(tmp_path: Path) -> None:
    """Each of these is inside by itself; the second leads out by way of the first."""
    climbing = pack(
        (member("a/b/c/up", tarfile.SYMTYPE, "../../.."), b""), (member("out", tarfile.SYMTYPE, "a/b/c/up/../../x"), b"")
    )  # fmt: skip
    with pytest.raises(BadArchive, match="through another link"):
        extract(io.BytesIO(climbing), tmp_path / "t", Limits())
