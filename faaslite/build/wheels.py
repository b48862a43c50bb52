"""The Python shim's libraries, as wheels that fit the Python of an image: what `faas images build` puts into the build's context.

They are found on this machine with pip, whose settings (index, proxy, certificates) hold; the image's build then needs no network.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from faaslite.build.errors import BuildError

__all__ = ["LIBRARIES", "PROBE", "ImagePython", "bring_installer", "collect", "parse_probe", "platforms"]

LIBRARIES = ("httptools", "uvloop")
OLDEST = (3, 11)
PROBE = (
    "import importlib.util, platform, shutil, sys; installs = shutil.which('uv') or importlib.util.find_spec('pip'); "
    "print(*sys.version_info[:2], platform.machine(), 'installs' if installs else 'alone', *platform.libc_ver())"
)
"""What an image's Python is asked; `parse_probe` reads the answer."""
_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class ImagePython:
    """`glibc` is (2, 36) and so on; None where the C library is another, which is taken for musl. `installs`: it has pip or uv."""

    version: tuple[int, int]
    machine: str
    glibc: tuple[int, int] | None
    installs: bool = True


def parse_probe(output: str, image: str) -> ImagePython:
    """Raises BuildError where the image can't be a base of the runtime."""
    words = output.split()
    try:
        version, machine = (int(words[0]), int(words[1])), words[2]
        installs = words[3] == "installs"
        glibc = words[5].split(".") if words[4:5] == ["glibc"] else None
        found = ImagePython(version, machine, (int(glibc[0]), int(glibc[1])) if glibc else None, installs)
    except (IndexError, ValueError) as error:
        raise BuildError(
            f"{image} can't be a base: its python3 did not say what it is, but {output.strip()[:200]!r}"
        ) from error
    if version < OLDEST:
        raise BuildError(
            f"{image} can't be a base: it has Python {version[0]}.{version[1]}, and {OLDEST[0]}.{OLDEST[1]} is the oldest"
        )
    return found


def platforms(python: ImagePython) -> list[str]:
    """The platform tags whose wheels run there, newest first (PEP 600, PEP 656)."""
    if python.glibc is None:
        return [f"musllinux_1_{minor}_{python.machine}" for minor in (2, 1)]
    found = [f"manylinux_2_{minor}_{python.machine}" for minor in range(python.glibc[1], 16, -1)]
    return [*found, f"manylinux2014_{python.machine}"]


def collect(python: ImagePython, target: Path) -> None:
    """Unpack the libraries into the folder `target`. Raises BuildError with what pip says."""
    version = f"{python.version[0]}.{python.version[1]}"
    with tempfile.TemporaryDirectory(prefix="faaslite-wheels-") as scratch:
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps",
            "--only-binary=:all:", "--implementation", "cp", "--python-version", version, "--abi", f"cp{version.replace('.', '')}",
            *(word for each in platforms(python) for word in ("--platform", each)), "--dest", scratch, *LIBRARIES,
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise BuildError(f"the shim's libraries: pip took longer than {_SECONDS:.0f} s") from error
        if done.returncode:
            if "No module named pip" in done.stderr:
                raise BuildError(f"the shim's libraries are fetched with pip, which {sys.executable} lacks; install it")
            errors = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
            raise BuildError(
                f"the shim's libraries for Python {version} can't be had: {'; '.join(errors) or done.stderr.strip()[-500:]}"
            )
        target.mkdir(parents=True, exist_ok=True)
        for each in sorted(Path(scratch).glob("*.whl")):
            with zipfile.ZipFile(each) as wheel:
                wheel.extractall(target)


def bring_installer(target: Path) -> None:
    """Copy this Python's pip into the folder `target`, for an image that has no installer: it is plain Python, and runs on every version that
    functions may have. Raises BuildError."""
    found = importlib.util.find_spec("pip")
    if found is None or not found.origin:
        raise BuildError(f"the base has neither pip nor uv, and {sys.executable} has no pip to give it; install it")
    shutil.copytree(Path(found.origin).parent, target / "pip", ignore=shutil.ignore_patterns("__pycache__"))
