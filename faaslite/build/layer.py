"""Dependency layers: what a function asks for, installed once on this machine, and kept by runtime, request and what was resolved."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from faaslite.build.archive import Archive, pack
from faaslite.build.dependencies import Dependencies, requirements_of
from faaslite.build.errors import BuildError
from faaslite.build.installing import BUILD_SECONDS, compile_layer, installed, installer, reason

__all__ = ["Layer", "build_layer", "layer_for", "requirements_of", "run_logged"]

OWN_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Layer:
    """An archive in the cache; `lock` is what was resolved (`name==version`), `cached` whether nothing had to be installed."""

    digest: str
    path: Path
    lock: tuple[str, ...] = ()
    cached: bool = False

    @property
    def data(self) -> bytes:
        return self.path.read_bytes()


def layer_key(requirements: str, runtime: str = f"python {OWN_PYTHON}") -> str:
    """What a layer depends on: the requirements, the runtime's version and the platform of its wheels."""
    return hashlib.sha256(f"{runtime} {sysconfig.get_platform()}\n{requirements}".encode()).hexdigest()


def build_layer(
    requirements: str, cache: Path, progress: Progress = lambda _: None, *, python: str = OWN_PYTHON, source: str = "requirements.txt",
    logs: Path | None = None, fresh: bool = False,
) -> Layer:  # fmt: skip
    """Install requirements, one a line, for the Python given (`3.12`), into a layer in the folder `cache`.

    What was asked before isn't resolved again unless `fresh`; what resolves to the same versions is the same layer. `progress`
    gets the installer's lines; the log of a build that failed stays in the folder `logs`. Raises BuildError.
    """
    kept = _Cache(cache, layer_key(requirements, f"python {python}"))
    if not fresh and (found := kept.find()) is not None:
        return found
    with tempfile.TemporaryDirectory(prefix="faaslite-layer-") as scratch:
        listed, target = Path(scratch, "requirements.txt"), Path(scratch, "layer")
        listed.write_text(requirements + "\n")
        progress(f"installing {', '.join(requirements.splitlines())}")
        uv = shutil.which("uv")
        tool = [uv] if uv else [sys.executable, "-m", "pip"]
        own = sys.executable if python == OWN_PYTHON else ""
        command = installer(tool, str(listed), str(target), python, own=own)
        log = _log_file(logs, kept.key)
        tail, code = run_logged(command, progress, log=log, environment=_environment(), cwd=scratch)
        if code:
            raise BuildError(f"{source}: {reason(tail, python)}{_see(logs, kept.key)}")
        target.mkdir(exist_ok=True)
        lock = installed(target)
        shutil.rmtree(target / "bin", ignore_errors=True)
        if own:
            compile_layer(target, own, jobs=0)
        return kept.keep(pack(target, keep_all=True), lock)


def layer_for(
    wanted: Dependencies,
    cache: Path,
    progress: Progress,
    *,
    runtime: str = "python",
    logs: Path | None = None,
    fresh: bool = False,
) -> Layer:
    """The layer of what a function asks for. `runtime` is the Function's (`python`, `python3.12`, `node`). Raises BuildError."""
    if runtime.startswith("node"):
        from faaslite.build.npm import build_modules

        return build_modules(wanted, cache, progress, logs=logs, fresh=fresh)
    python = runtime.removeprefix("python") or OWN_PYTHON
    _check_python(wanted, python)
    return build_layer(wanted.text, cache, progress, python=python, source=wanted.source, logs=logs, fresh=fresh)


class _Cache:
    """`asked-KEY.json` says what a request came to; `HEX.tar.gz` are the archives, by their digest."""

    def __init__(self, folder: Path, key: str) -> None:
        self.key = key
        self._folder = folder
        self._asked = folder / f"asked-{key}.json"

    def find(self) -> Layer | None:
        try:
            known = json.loads(self._asked.read_text())
            path = self._folder / f"{known['digest'].removeprefix('sha256:')}.tar.gz"
            return Layer(known["digest"], path, tuple(known["lock"]), True) if path.exists() else None
        except (FileNotFoundError, ValueError, KeyError):
            return None

    def keep(self, archive: Archive, lock: Sequence[str]) -> Layer:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / f"{archive.digest.removeprefix('sha256:')}.tar.gz"
        _write(path, archive.data)
        _write(self._asked, json.dumps({"digest": archive.digest, "lock": list(lock)}).encode())
        return Layer(archive.digest, path, tuple(lock))


def _write(path: Path, data: bytes) -> None:
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    new.write_bytes(data)
    new.replace(path)


def _environment() -> dict[str, str]:
    found = {**os.environ, "NO_COLOR": "1"}
    if not found.get("PIP_CONFIG_FILE"):
        found.pop("PIP_CONFIG_FILE", None)
    return found


def run_logged(
    command: Sequence[str], progress: Progress, *, log: Path | None, environment: dict[str, str], cwd: str
) -> tuple[list[str], int]:
    """Run a build's command: its last lines and its exit code. Each line goes to `progress` and to `log`, which stays if it failed."""
    tail: deque[str] = deque(maxlen=200)
    if log is not None:
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (
        open(log or os.devnull, "w") as file,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, errors="replace", env=environment, cwd=cwd) as process,
    ):  # fmt: skip
        late = threading.Timer(BUILD_SECONDS, process.kill)
        late.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                file.write(line)
                tail.append(line.rstrip())
                progress(f"  {line.rstrip()}")
            code = process.wait()
        except BaseException:
            process.kill()
            raise
        finally:
            timed_out = not late.is_alive() and process.returncode == -9
            late.cancel()
            late.join()
    if timed_out:
        tail.append(f"ERROR: it took longer than {BUILD_SECONDS:.0f} s")
    elif not code and log is not None:
        log.unlink()
    return list(tail), code


def _log_file(logs: Path | None, key: str) -> Path | None:
    return logs / f"{key[:12]}.log" if logs is not None else None


def _see(logs: Path | None, key: str) -> str:
    return f" (build log: {_log_file(logs, key)})" if logs is not None else ""


def _check_python(wanted: Dependencies, python: str) -> None:
    if not wanted.python:
        return
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        fits = SpecifierSet(wanted.python).contains(f"{python}.99", prereleases=True) or SpecifierSet(
            wanted.python
        ).contains(python)
    except InvalidSpecifier as error:
        raise BuildError(f"{wanted.source}: requires-python {wanted.python!r}: {error}") from error
    if not fits:
        raise BuildError(
            f"{wanted.source} requires Python {wanted.python}, the function's runtime is Python {python}; say another with --runtime"
        )
