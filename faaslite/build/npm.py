"""Dependency layers of node functions: `node_modules`, made by npm on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from faaslite.build.archive import pack
from faaslite.build.dependencies import Dependencies
from faaslite.build.errors import BuildError
from faaslite.build.layer import Layer, Progress, _Cache, _log_file, _see, layer_key, run_logged

__all__ = ["build_modules"]

_FILES = ("package.json", "package-lock.json", "npm-shrinkwrap.json", ".npmrc")


def build_modules(
    wanted: Dependencies, cache: Path, progress: Progress, *, logs: Path | None = None, fresh: bool = False
) -> Layer:
    """`npm ci` where there is a lock file, else `npm install`; without what is for development. Raises BuildError."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        raise BuildError(
            f"{wanted.source} needs npm, which is not on this machine's PATH; install Node.js and deploy again"
        )
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    files = [each for name in _FILES if (each := wanted.folder / name).exists()]
    asked = "\0".join(each.read_text() for each in files)
    kept = _Cache(cache, layer_key(asked, f"node {version.partition('.')[0]}"))
    if not fresh and (found := kept.find()) is not None:
        return found
    locked = any(each.name in ("package-lock.json", "npm-shrinkwrap.json") for each in files)
    with tempfile.TemporaryDirectory(prefix="faaslite-layer-") as scratch:
        for each in files:
            shutil.copy(each, scratch)
        command = [
            npm,
            "ci" if locked else "install",
            "--omit=dev",
            "--no-audit",
            "--no-fund",
            "--no-update-notifier",
            "--color=false",
        ]
        progress(f"npm {command[1]}: {wanted.source}")
        environment = {**os.environ, "NODE_ENV": "production"}
        tail, code = run_logged(command, progress, log=_log_file(logs, kept.key), environment=environment, cwd=scratch)
        if code:
            raise BuildError(f"{wanted.source}: {_reason(tail)}{_see(logs, kept.key)}")
        modules = Path(scratch, "node_modules")
        modules.mkdir(exist_ok=True)
        shutil.rmtree(modules / ".bin", ignore_errors=True)
        (modules / ".package-lock.json").unlink(missing_ok=True)
        lock = sorted(each.parent.relative_to(modules).as_posix() for each in modules.glob("**/package.json"))
        return kept.keep(pack(modules, keep_all=True), lock[:500])


def _reason(tail: list[str]) -> str:
    """npm's error lines, without where it keeps its own log."""
    errors = [each.removeprefix("npm error ").strip() for each in tail if each.startswith("npm error ")]
    useful = [
        each for each in errors if each and "complete log of this run" not in each and not each.endswith("-debug-0.log")
    ]
    return ("; ".join(dict.fromkeys(useful)) or "; ".join(tail[-5:]) or "npm failed")[:1000]
