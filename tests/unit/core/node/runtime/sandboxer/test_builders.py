"""Where a process node's builds look for packages: where pip on this machine would."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.node.runtime.sandboxer.builders import builder_of, npm_settings, places_in, settings_from
from core.node.runtime.sandboxer.images import find_images, image_root

LISTED = """\
:env:.index-url='https://env/simple'
global.index-url='https://global/simple'
global.extra-index-url='file:///srv/a/simple\\nfile:///srv/b/simple'
global.trusted-host="global"
install.no-index='false'
global.target='/somewhere'
download.find-links='/elsewhere'
nonsense
"""


def test_settings_are_those_that_say_where_packages_are() -> None:
    assert settings_from(LISTED) == {
        "PIP_INDEX_URL": "https://env/simple",
        "PIP_EXTRA_INDEX_URL": "file:///srv/a/simple file:///srv/b/simple",
        "PIP_TRUSTED_HOST": "global",
        "PIP_NO_INDEX": "false",
    }
    listed = {
        "registry": "https://npm/",
        "cafile": None,
        "noproxy": [""],
        "strict-ssl": False,
        "_auth": "x",
        "prefix": "/usr",
    }
    assert npm_settings(json.dumps(listed)) == {"NPM_CONFIG_REGISTRY": "https://npm/", "NPM_CONFIG_STRICT_SSL": "false"}
    assert npm_settings("npm is not well") == {}


def test_places_on_this_machine_are_shown_to_builds(tmp_path: Path) -> None:
    (tmp_path / "index" / "simple").mkdir(parents=True)
    (tmp_path / "limits.txt").write_text("")
    values = [f"https://x/simple file://{tmp_path}/index/simple", f"{tmp_path}/limits.txt", "/not/there", "/", "5"]
    assert places_in(values) == [str(tmp_path / "index"), str(tmp_path / "limits.txt")]


def test_the_builder_is_the_runtime_and_its_installer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_INDEX_URL", "https://uv/simple")
    monkeypatch.setenv("no_proxy", "inside")
    monkeypatch.setenv("PASSWORD", "secret")
    image = find_images(image_root())["faaslite/python"]
    found = builder_of(image)
    assert found is not None
    assert (found.name, found.base, found.parks) == ("faaslite/python+build", "faaslite/python", False)
    assert found.entrypoint[-1].endswith("runtime-images/python/building.py")
    assert Path(found.environment["FAASLITE_INSTALLER"]).exists()
    assert set(image.folders) <= set(found.folders) | {each for each in image.folders if each.startswith("/usr")}
    assert found.environment["UV_INDEX_URL"] == "https://uv/simple" and found.environment["no_proxy"] == "inside"
    assert "PASSWORD" not in found.environment
