"""Layers are made by the real pip, once per set of requirements."""

import io
import tarfile

import pytest

from faaslite.build.errors import BuildError
from faaslite.build.layer import build_layer, layer_key, requirements_of


def test_requirements_are_read_without_comments(tmp_path):
    (tmp_path / "requirements.txt").write_text("# why\nnumpy>=2  # fast\n\nPillow\n")
    assert requirements_of(tmp_path) == "numpy>=2\nPillow"
    assert requirements_of(tmp_path / "requirements.txt") == ""
    assert layer_key("a") != layer_key("b")


def local_package(folder):
    """A distribution that needs no index."""
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "tiny"\nversion = "1"\n'
    )
    (folder / "backend.py").write_text(
        "import zipfile\n"
        "def build_wheel(folder, settings=None, metadata=None):\n"
        "    with zipfile.ZipFile(f'{folder}/tiny-1-py3-none-any.whl', 'w') as z:\n"
        "        z.writestr('tiny.py', 'VALUE = 1')\n"
        "        z.writestr('tiny-1.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: tiny\\nVersion: 1\\n')\n"
        "        z.writestr('tiny-1.dist-info/WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n"
        "        z.writestr('tiny-1.dist-info/RECORD', '')\n"
        "    return 'tiny-1-py3-none-any.whl'\n"
    )
    return folder


def test_builds_once_and_keeps_it(tmp_path):
    source = local_package(tmp_path / "tiny")
    said = []
    first = build_layer(str(source), tmp_path / "cache", said.append)
    assert said[0] == f"installing {source}" and len(said) > 1
    assert first.lock == ("tiny==1",) and not first.cached
    with tarfile.open(fileobj=io.BytesIO(first.data), mode="r:gz") as tar:
        assert "tiny.py" in tar.getnames()
    (source / "pyproject.toml").unlink()
    before = list(said)
    second = build_layer(str(source), tmp_path / "cache", said.append)
    assert second.digest == first.digest and second.cached
    assert said == before


def test_says_what_pip_said(tmp_path):
    with pytest.raises(BuildError, match=r"requirements\.txt: .*nowhere"):
        build_layer(str(tmp_path / "nowhere"), tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.tar.gz"))
