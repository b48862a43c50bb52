"""Dependency layers: what a function asks for, installed once on this machine, and kept by runtime, request and what was resolved."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
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

__all__ = ["Layer", "build_layer", "layer_for", "requirements_of", "run_logged"]

BUILD_SECONDS = 900.0
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
        command, environment = _installer(listed, target, python)
        tail, code = run_logged(command, progress, log=_log_file(logs, kept.key), environment=environment, cwd=scratch)
        if code:
            raise BuildError(f"{source}: {_reason(tail, python)}{_see(logs, kept.key)}")
        target.mkdir(exist_ok=True)
        lock = _installed(target)
        shutil.rmtree(target / "bin", ignore_errors=True)
        if python == OWN_PYTHON:
            _compile(target)
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


def _installer(listed: Path, target: Path, python: str) -> tuple[list[str], dict[str, str]]:
    """uv where there is one, else this Python's pip. Only wheels: code of packages doesn't run here, and they fit the runtime."""
    files = ["--target", str(target), "--requirement", str(listed)]
    environment = {**os.environ, "PIP_CONFIG_FILE": os.environ.get("PIP_CONFIG_FILE", ""), "NO_COLOR": "1"}
    if not environment["PIP_CONFIG_FILE"]:
        del environment["PIP_CONFIG_FILE"]
    if uv := shutil.which("uv"):
        local = [] if python != OWN_PYTHON else ["--python", sys.executable]
        other = ["--python-version", python] if python != OWN_PYTHON else []
        return [uv, "pip", "install", "--no-build", "--no-config", *local, *other, *files], environment
    command = [
        sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--no-compile", "--progress-bar", "off",
        "--only-binary", ":all:",
    ]  # fmt: skip
    if python != OWN_PYTHON:
        machine = platform.machine()
        tags = [f"manylinux_2_{minor}_{machine}" for minor in (34, 31, 28, 27, 24, 17)] + [f"manylinux2014_{machine}"]
        command += ["--implementation", "cp", "--python-version", python, *(f"--platform={each}" for each in tags)]
    return [*command, *files], environment


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


def _reason(tail: Sequence[str], python: str) -> str:
    """One line from the installer's last ones."""
    text = "\n".join(tail)
    if "No module named pip" in text:
        return f"needs uv or pip, and {sys.executable} lacks pip; install one of them and deploy again"
    errors = [each.removeprefix("ERROR: ") for each in tail if each.startswith("ERROR: ")]
    if not errors:  # uv's are a tree below `error:` or a cross
        start = next((at for at, each in enumerate(tail) if re.match(r"\s*(error:|×|x )", each)), len(tail) - 8)
        errors = [" ".join(" ".join(each.strip(" ×x╰─▶├│\t") for each in tail[max(start, 0) :]).split())]
    reason = "; ".join(dict.fromkeys(errors))
    if re.search(
        r"No matching distribution|not a supported wheel|no wheels|no usable wheels|No solution found", reason
    ):
        reason += f"; wheels for Python {python} on Linux {platform.machine()} are looked for"
        if "from versions: none" in reason:
            reason += ", and there is no such package, or it has none"
    return reason[:1500]


def _installed(target: Path) -> list[str]:
    """`name==version` of what lies in a layer."""
    found = []
    for each in target.glob("*.dist-info"):
        name, _, version = each.name.removesuffix(".dist-info").rpartition("-")
        found.append(f"{name.lower().replace('_', '-')}=={version}")
    return sorted(found)


def _compile(target: Path) -> None:
    """Layers are read-only where they are used, so what would be compiled at each import is compiled now."""
    command = [sys.executable, "-I", "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash", "-s", str(target), str(target)]  # fmt: skip
    # Files that can't be compiled are those that a package never imports, such as templates.
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=BUILD_SECONDS)


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
