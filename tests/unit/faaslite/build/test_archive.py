"""Packages are the same bytes for the same files, and nothing gets into one by accident."""

import hashlib
import io
import os
import tarfile

import pytest

from faaslite.build.archive import IGNORE_FILE, pack
from faaslite.build.errors import BuildError


def names(archive):
    with tarfile.open(fileobj=io.BytesIO(archive.data), mode="r:gz") as tar:
        return tar.getnames()


def test_equal_files_give_equal_bytes_whatever_their_times_and_order(tmp_path):
    for folder, order in (("one", "ab"), ("two", "ba")):
        for name in order:
            path = tmp_path / folder / f"{name}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(name)
        os.utime(tmp_path / folder / "a.py", (0, 0) if folder == "one" else None)
    one, two = pack(tmp_path / "one"), pack(tmp_path / "two")
    assert one.data == two.data
    assert one.digest == f"sha256:{hashlib.sha256(one.data).hexdigest()}"
    assert one.files == 2


def test_a_changed_byte_changes_the_digest(tmp_path):
    (tmp_path / "a.py").write_text("1")
    before = pack(tmp_path).digest
    (tmp_path / "a.py").write_text("2")
    assert pack(tmp_path).digest != before


def test_leaves_out_what_is_nobodys_code_and_what_the_ignore_file_says(tmp_path):
    for each in ("app.py", "sub/lib.py", ".git/config", "__pycache__/app.pyc", ".venv/x", "data/big.bin", "notes.txt"):
        path = tmp_path / each
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (tmp_path / IGNORE_FILE).write_text("# comment\ndata/\n*.txt\n")
    assert names(pack(tmp_path)) == ["app.py", "sub/lib.py"]


def test_a_single_file_is_a_package(tmp_path):
    (tmp_path / "one.py").write_text("x")
    (tmp_path / "other.py").write_text("y")
    assert names(pack(tmp_path / "one.py")) == ["one.py"]


def test_links_inside_stay_links_and_links_out_are_refused(tmp_path):
    folder = tmp_path / "f"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.py").write_text("x")
    (folder / "sub" / "b.py").symlink_to("../a.py")
    assert names(pack(folder)) == ["a.py", "sub/b.py"]
    for target in ("../../secret", "/etc/passwd"):
        link = folder / "sub" / "out"
        link.symlink_to(target)
        with pytest.raises(BuildError, match="links out of the package"):
            pack(folder)
        link.unlink()


def test_says_what_it_cannot_pack(tmp_path):
    with pytest.raises(BuildError, match="doesn't exist"):
        pack(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BuildError, match="no files to deploy"):
        pack(tmp_path / "empty")
    os.mkfifo(tmp_path / "empty" / "pipe")
    with pytest.raises(BuildError, match="neither a file"):
        pack(tmp_path / "empty")
