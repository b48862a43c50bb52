"""What builds dependency layers on a process node: the runtime's `faaslite-build`, with this machine's installer and its settings.

A build sees what a function sees, and besides that uv, pip or npm, and the folders and files that their settings name. The settings are those that
they would have here: configuration files and environment. Builds in containers (Docker nodes) have the image's installer, and these settings.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from .images import RuntimeImage

__all__ = ["COMMAND", "builder_of", "container_settings", "places_in", "settings_from"]

COMMAND = "faaslite-build"
"""The first word of a container's command that asks for a build."""
SUFFIX = "+build"
_SETTINGS = frozenset((
    "cert", "client-cert", "constraint", "default-timeout", "extra-index-url", "find-links", "index-url", "no-index", "pre", "prefer-binary",
    "proxy", "retries", "timeout", "trusted-host",
))  # fmt: skip
_PASSED = re.compile(r"(UV_(DEFAULT_INDEX|INDEX|INDEX_URL|EXTRA_INDEX_URL|FIND_LINKS|NO_INDEX|INSECURE_HOST|NATIVE_TLS|CONSTRAINT)|SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE)|(?i:(https?|all|no)_proxy)")  # fmt: skip
_LISTED = re.compile(r"(?P<place>[^.=]+|:env:)\.(?P<name>[^=]+)='?(?P<value>.*)")


def container_settings() -> tuple[dict[str, str], list[str]]:
    """What a build in a container is told of where Python's packages are on this machine, and the folders and files that it has to see for that.
    Asks pip, which takes half a second."""
    settings = {name: value for name, value in _pip().items() if name != "FAASLITE_INSTALLER"}
    settings |= {name: value for name, value in os.environ.items() if value and _PASSED.fullmatch(name)}
    return settings, [each for each in places_in(settings.values()) if not each.startswith("/usr/")]


def builder_of(image: RuntimeImage) -> RuntimeImage | None:
    """The builder of the layers of a runtime image; None where there is none. It asks pip or npm for its settings, which takes half a second."""
    program = image.folder / "building.py"
    if not program.is_file():
        return None
    settings = _npm(image.entrypoint[0]) if image.entrypoint else _pip()
    settings |= {name: value for name, value in os.environ.items() if value and _PASSED.fullmatch(name)}
    tool = [settings["FAASLITE_INSTALLER"]] if "FAASLITE_INSTALLER" in settings else []
    found = dict.fromkeys((*image.folders, str(image.folder), *tool, *places_in(settings.values())))
    return replace(
        image,
        name=image.name + SUFFIX,
        folders=tuple(each for each in found if not each.startswith("/usr/")),
        entrypoint=(os.path.realpath(sys.executable), "-I", "-X", "utf8", str(program)),
        environment=settings,
        parks=False,
    )


def _pip() -> dict[str, str]:
    """uv where there is one, else this Python's pip; and pip's settings."""
    found = importlib.util.find_spec("pip")
    uv = shutil.which("uv")
    tool = os.path.realpath(uv) if uv else str(Path(found.origin).parent) if found and found.origin else ""
    settings = settings_from(_said(sys.executable, "-m", "pip", "config", "list") if found else "")
    return settings | ({"FAASLITE_INSTALLER": tool} if tool else {})


def _npm(node: str) -> dict[str, str]:
    npm = shutil.which("npm")
    if npm is None:
        return {}
    program = os.path.realpath(npm)
    return npm_settings(_said(node, program, "config", "list", "--json")) | {
        "FAASLITE_INSTALLER": program,
        "FAASLITE_NODE": node,
    }


def npm_settings(listed: str) -> dict[str, str]:
    """Environment variables for npm, from what `npm config list --json` printed, as far as they say where packages are."""
    try:
        said = json.loads(listed)
    except ValueError:
        return {}
    found = {name: said.get(name) for name in ("registry", "cafile", "proxy", "https-proxy", "noproxy", "strict-ssl")}
    texts = {
        name: json.dumps(value) if isinstance(value, bool) else str(value)
        for name, value in found.items()
        if value not in (None, "", [""], [])
    }
    return {f"NPM_CONFIG_{name.replace('-', '_').upper()}": value for name, value in texts.items()}


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60.0).stdout


def settings_from(listed: str) -> dict[str, str]:
    """Environment variables for pip, from what `pip config list` printed, as far as they say where packages are."""
    found: dict[str, str] = {}
    ours: dict[str, str] = {}
    for line in listed.splitlines():
        matched = _LISTED.fullmatch(line)
        if matched is None or matched["place"] not in ("global", "install", ":env:"):
            continue
        name = matched["name"].replace("_", "-").lower()
        if name not in _SETTINGS:
            continue
        try:
            value = str(ast.literal_eval(line.partition("=")[2]))
        except (ValueError, SyntaxError):
            continue
        into = ours if matched["place"] == ":env:" else found
        into[f"PIP_{name.replace('-', '_').upper()}"] = " ".join(value.split())
    return {**found, **ours}


def places_in(values: Iterable[str]) -> list[str]:
    """The folders and files of this machine that settings name. An index is a folder `simple` whose files lie beside it."""
    found: dict[str, None] = {}
    for word in (word for value in values for word in value.split()):
        path = word.removeprefix("file://") if word.startswith(("file:///", "/")) else ""
        path = path.rstrip("/").removesuffix("/simple")
        if path.count("/") >= 1 and len(path) > 1 and os.path.exists(path):
            found[os.path.normpath(path)] = None
    return list(found)
