"""The package store: whole archives or nothing, and no archive that could harm a node."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import tarfile
import time
from collections.abc import AsyncIterator

import pytest

from gateway.jobs import archive as module
from gateway.jobs.archive import ArchiveInvalid, check
from gateway.jobs.packages import KEPT, DigestMismatch, Packages, PayloadTooLarge, is_digest, unused

NOW = 1_800_000_000.0


def entry(
    name: str, data: bytes = b"", type_: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    found = tarfile.TarInfo(name)
    found.type, found.linkname, found.size = type_, link, len(data)
    return found, data


def packed(*entries: tuple[tarfile.TarInfo, bytes], format_: int = tarfile.PAX_FORMAT) -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=format_) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return gzip.compress(plain.getvalue(), mtime=0)


GOOD = packed(
    entry("pkg", type_=tarfile.DIRTYPE), entry("pkg/app.py", b"def main(): ..."), entry("pkg/" + "n" * 150 + ".txt", b"x"),
    entry("pkg/link", type_=tarfile.SYMTYPE, link="app.py"), entry("up", type_=tarfile.SYMTYPE, link="./pkg/app.py"),
    entry("pkg/deep/up", type_=tarfile.SYMTYPE, link="../../up"), entry("hard", type_=tarfile.LNKTYPE, link="pkg/app.py"),
)  # fmt: skip
DIGEST = f"sha256:{hashlib.sha256(GOOD).hexdigest()}"

SYM, LINK, DIR = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE
HOSTILE = [
    ("an absolute name", [entry("/etc/passwd", b"x")], '"/etc/passwd" is an absolute path'),
    ("a name that climbs", [entry("a/../../b", b"x")], '"a/../../b" leaves the archive'),
    ("a folder that climbs", [entry("..", type_=DIR)], '".." leaves the archive'),
    ("an absolute link", [entry("a", type_=SYM, link="/etc/passwd")], '"a" is a link out of the archive, to "/etc/passwd"'),
    ("a link that climbs", [entry("d/a", type_=SYM, link="../../x")], '"d/a" is a link out'),
    ("a link that climbs later", [entry("d/a", type_=SYM, link="x/../../y")], '"d/a" is a link out'),
    ("a link to nothing", [entry("a", type_=SYM, link="")], '"a" is a link out'),
    ("a hard link out", [entry("a", type_=LINK, link="../x")], '"a" is a link out'),
    ("an absolute hard link", [entry("a", type_=LINK, link="/etc/shadow")], '"a" is a link out'),
    ("a file below a link", [entry("d", type_=SYM, link="e"), entry("d/f", b"x")], '"d/f" lies below the link "d"'),
    ("a link below a link", [entry("d", type_=SYM, link="."), entry("d/f", type_=SYM, link="..")], '"d/f" lies below'),
    ("a file before its link", [entry("d/f", b"x"), entry("d", type_=SYM, link="e")], '"d/f" lies below the link "d"'),
    ("a device", [entry("dev", type_=tarfile.CHRTYPE)], '"dev" is neither a file'),
    ("a block device", [entry("sda", type_=tarfile.BLKTYPE)], '"sda" is neither a file'),
    ("a pipe", [entry("p", type_=tarfile.FIFOTYPE)], '"p" is neither a file'),
    ("a name twice", [entry("a", b"1"), entry("./a", b"2")], "is there twice"),
    ("a link and then a file of its name", [entry("a", type_=SYM, link="b"), entry("a", b"x")], '"a" is there twice'),
    ("a root that is a link", [entry(".", type_=SYM, link="a")], '"." is the root of the archive'),
]  # fmt: skip


async def chunks(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


@pytest.fixture
async def packages(tmp_path) -> Packages:
    found = Packages(tmp_path / "packages")
    await found.start()
    return found


async def stored(packages: Packages, digest: str = DIGEST) -> bytes:
    return b"".join([each async for each in packages.read(digest)])


def leftovers(packages: Packages) -> list[str]:
    return [each.name for each in packages.folder.iterdir()]


async def test_an_archive_is_stored_once_and_read_back(packages):
    assert packages.size(DIGEST) is None
    assert await packages.put(DIGEST, chunks(GOOD)) is True
    assert await packages.put(DIGEST, chunks(GOOD)) is False
    assert (packages.size(DIGEST), await stored(packages)) == (len(GOOD), GOOD)
    assert leftovers(packages) == [f"{DIGEST.replace(':', '-')}.tar.gz"]


async def test_a_large_archive_goes_through_in_slices(packages):
    data = packed(entry("random", os.urandom(3 << 20)))
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    await packages.put(digest, chunks(data, 65536))
    parts = [each async for each in packages.read(digest)]
    assert len(parts) > 2 and b"".join(parts) == data


async def test_a_wrong_digest_keeps_nothing(packages):
    with pytest.raises(DigestMismatch, match=DIGEST):
        await packages.put("sha256:" + "0" * 64, chunks(GOOD))
    assert leftovers(packages) == []


async def test_too_much_is_refused_before_it_is_stored(tmp_path):
    packages = Packages(tmp_path / "p", largest=100)
    await packages.start()
    with pytest.raises(PayloadTooLarge, match="100 bytes"):
        await packages.put(DIGEST, chunks(GOOD))
    assert leftovers(packages) == []


async def test_an_upload_that_breaks_off_keeps_nothing(packages):
    async def breaks() -> AsyncIterator[bytes]:
        yield GOOD[:100]
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await packages.put(DIGEST, breaks())
    assert leftovers(packages) == []


async def test_what_a_dead_process_left_is_removed_at_the_start(packages):
    (packages.folder / "upload-x.part").write_bytes(b"half")
    await packages.put(DIGEST, chunks(GOOD))
    await Packages(packages.folder).start()
    assert leftovers(packages) == [f"{DIGEST.replace(':', '-')}.tar.gz"]


@pytest.mark.parametrize(
    "digest", ["", "sha256:", "sha256:" + "g" * 64, "sha256:" + "A" * 64, "sha256:../../etc/passwd", "md5:" + "0" * 64]
)
async def test_what_is_no_digest_is_no_path(packages, digest):
    assert not is_digest(digest)
    for refused in (packages.path, packages.size):
        with pytest.raises(ValueError, match="is not a digest"):
            refused(digest)


@pytest.mark.parametrize(("entries", "message"), [row[1:] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
@pytest.mark.parametrize("format_", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
async def test_hostile_archives_are_refused_by_name(packages, entries, message, format_):
    data = packed(entry("fine.py", b"x"), *entries, format_=format_)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    with pytest.raises(ArchiveInvalid) as raised:
        await packages.put(digest, chunks(data))
    assert message in str(raised.value)
    assert leftovers(packages) == []


@pytest.mark.parametrize(
    "data",
    [
        b"", b"hello", gzip.compress(b"hello" * 1000), GOOD[: len(GOOD) // 2], GOOD[:-6],
        GOOD[:-8] + b"\0\0\0\0" + GOOD[-4:], gzip.compress(b"\xff" * 2048),
    ],
    ids=["empty", "text", "gzip of text", "half", "cut at its checksum", "a wrong checksum", "no header"],
)  # fmt: skip
async def test_what_is_no_archive_is_refused(packages, data):
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    with pytest.raises(ArchiveInvalid):
        await packages.put(digest, chunks(data))
    assert leftovers(packages) == []


def test_bombs_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LARGEST_UNPACKED", 1 << 20)
    monkeypatch.setattr(module, "MOST_ENTRIES", 50)
    path = tmp_path / "bomb"
    path.write_bytes(packed(entry("zeros", b"\0" * (2 << 20))))
    with pytest.raises(ArchiveInvalid, match="more than 1 MiB"):
        check(path)
    path.write_bytes(packed(*(entry(f"f{n}") for n in range(51))))
    with pytest.raises(ArchiveInvalid, match="more than 50 entries"):
        check(path)
    long_name, _ = entry("x" * 300, b"x")
    monkeypatch.setattr(module, "LARGEST_HEADER", 200)
    path.write_bytes(packed((long_name, b"x"), format_=tarfile.GNU_FORMAT))
    with pytest.raises(ArchiveInvalid, match="extended header"):
        check(path)


def test_an_empty_archive_is_one(tmp_path):
    (tmp_path / "a").write_bytes(packed())
    check(tmp_path / "a")


def test_what_is_unused_for_long_may_go():
    held = {"a": NOW - KEPT - 1, "b": NOW - KEPT - 1, "c": NOW - KEPT + 1}
    assert unused(held, {"b"}, NOW) == ["a"]
    assert unused(held, set(), NOW) == ["a", "b"]
    assert unused(held, set(), NOW - 10) == []


async def test_collecting_counts_from_the_last_use(packages):
    await packages.put(DIGEST, chunks(GOOD))
    begin = packages.stored()[DIGEST]
    assert packages.collect({DIGEST, "nonsense"}, begin + KEPT * 3) == []
    assert packages.collect(set(), begin + KEPT * 4 - 1) == []
    assert packages.collect(set(), begin + KEPT * 4 + 1) == [DIGEST]
    assert packages.size(DIGEST) is None
    await packages.put(DIGEST, chunks(GOOD))
    os.utime(packages.path(DIGEST), (1, 1))
    await packages.put(DIGEST, chunks(GOOD))
    assert packages.stored()[DIGEST] > 1, "an upload is a use"


async def test_packages_from_before_they_had_owners_stay_anybodys(tmp_path):
    folder = tmp_path / "packages"
    first = Packages(folder)
    await first.start()
    await first.put(DIGEST, chunks(GOOD), "team")
    assert first.owned(DIGEST, "team") and not first.owned(DIGEST, "other")
    shutil.rmtree(first.owners)
    again = Packages(folder)
    await again.start()
    assert again.owned(DIGEST, "other")


async def test_what_is_collected_has_no_owner_any_more(packages):
    await packages.put(DIGEST, chunks(GOOD), "team")
    assert packages.collect([], time.time() + KEPT + 60) == [DIGEST]
    assert not packages.owned(DIGEST, "team")
