"""What a zygote finds out of a package without running it, and what it imports of that."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

SHIM = str(Path(__file__).resolve().parents[4] / "runtime-images" / "python")


@pytest.fixture
def imports(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", [*sys.path, SHIM])
    yield importlib.import_module("faaslite_shim.imports")
    for name in [each for each in sys.modules if each.partition(".")[0] == "faaslite_shim"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import a, b.c as d", {"a", "b.c"}),
        ("from a.b import c", {"a.b"}),
        ("from . import sibling\nfrom .x import y", set()),
        ("try:\n    import fast\nexcept ImportError:\n    import slow\nelse:\n    import third", {"fast", "slow", "third"}),
        ("if True:\n    import a\nelse:\n    import b\nwith x:\n    import c\nfor _ in x:\n    import d", {"a", "b", "c", "d"}),
        ("class A:\n    import a", {"a"}),
        ("def f():\n    import late\nasync def g():\n    import later", set()),
        ("import (", set()),
        ("\0", set()),
    ],
)  # fmt: skip
def test_imports_of_a_module(imports, source: str, found: set[str]) -> None:
    assert imports.imports_of(source.encode()) == found


def test_a_package_is_read_but_for_its_tests_and_hidden_folders(imports, tmp_path: Path) -> None:
    for name, text in {"a.py": "import json", "sub/b.py": "import csv", "tests/c.py": "import wave", ".x/d.py": "import cgi"}.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert imports.wanted(str(tmp_path)) == {"json", "csv"}


def test_preload_imports_of_the_library_and_the_layer_alone(imports, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    package, layer = tmp_path / "package", tmp_path / "layer"
    for folder in (package, layer):
        folder.mkdir()
    (package / "own_module_of_it.py").write_text("raise SystemExit('never run')")
    (layer / "of_the_layer.py").write_text("VALUE = 1")
    (layer / "broken_of_it.py").write_text("raise SystemExit('while imported')")
    wanted = ["broken_of_it", "colorsys", "json", "nowhere_to_be_found", "of_the_layer", "own_module_of_it"]
    sys.modules.pop("colorsys", None)
    try:
        found = imports.preload(wanted, str(package), str(layer))
    finally:
        sys.modules.pop("of_the_layer", None)
    assert found["imported"] == ["colorsys", "of_the_layer"]
    assert set(found["failed"]) == {"broken_of_it"}
    assert found["threads"] >= 1


def test_nothing_wanted_imports_nothing(imports, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert imports.preload(None, str(tmp_path), "")["imported"] == []
