"""Dependency layers of node functions: `node_modules`, made by npm on this machine."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from faaslite.api.layers import FROM
from faaslite.build.archive import pack
from faaslite.build.dependencies import Dependencies
from faaslite.build.errors import BuildError
from faaslite.build.installing import LOCKS, NPM_FILES, npm_arguments, npm_reason, prune_modules
from faaslite.build.layer import Layer, Progress, _Cache, _log_file, _see, layer_key, run_logged

__all__ = ["build_modules", "declared_modules"]


def declared_modules(folder: Path) -> str:
    """For `spec.package.requirements`: the files that npm reads, which lie in the package, with their digests."""
    files = [each for name in NPM_FILES if (each := folder / name).is_file()]
    lines = [f"./{each.name} sha256:{hashlib.sha256(each.read_bytes()).hexdigest()}" for each in files]
    return "\n".join([f"{FROM}package.json", *lines])


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
    files = [each for name in NPM_FILES if (each := wanted.folder / name).exists()]
    asked = "\0".join(each.read_text() for each in files)
    kept = _Cache(cache, layer_key(asked, f"node {version.partition('.')[0]}"))
    if not fresh and (found := kept.find()) is not None:
        return found
    locked = any(each.name in LOCKS for each in files)
    with tempfile.TemporaryDirectory(prefix="faaslite-layer-") as scratch:
        for each in files:
            shutil.copy(each, scratch)
        command = [npm, *npm_arguments(locked)]
        progress(f"npm {command[1]}: {wanted.source}")
        environment = {**os.environ, "NODE_ENV": "production"}
        tail, code = run_logged(command, progress, log=_log_file(logs, kept.key), environment=environment, cwd=scratch)
        if code:
            raise BuildError(f"{wanted.source}: {npm_reason(tail)}{_see(logs, kept.key)}")
        modules = Path(scratch, "node_modules")
        modules.mkdir(exist_ok=True)
        lock = prune_modules(modules)
        return kept.keep(pack(modules, keep_all=True), lock)
