"""Dependency layers: what `requirements.txt` asks for, installed once and kept by what was asked."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path

from faaslite.build.archive import Archive, pack
from faaslite.build.errors import BuildError

__all__ = ["build_layer", "requirements_of"]

_BUILD_SECONDS = 900.0
Progress = Callable[[str], None]


def requirements_of(source: Path) -> str:
    """The requirements of a folder, comments and blank lines left out; "" where it has none."""
    file = source / "requirements.txt"
    if not source.is_dir() or not file.exists():
        return ""
    lines = (line.split(" #", 1)[0].strip() for line in file.read_text().splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("#"))


def layer_key(requirements: str) -> str:
    """What a layer depends on: the requirements, the interpreter's version and the platform of its wheels."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return hashlib.sha256(f"python {version} {sysconfig.get_platform()}\n{requirements}".encode()).hexdigest()


def build_layer(requirements: str, cache: Path, progress: Progress = lambda _: None) -> Archive:
    """Install the requirements with pip into a folder of their own and archive it; the archive is kept in `cache`.

    Raises BuildError with pip's last error line where they can't be resolved or built.
    """
    kept = cache / f"{layer_key(requirements)}.tar.gz"
    if kept.exists():
        data = kept.read_bytes()
        return Archive(data, f"sha256:{hashlib.sha256(data).hexdigest()}", 0)
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="faaslite-layer-") as scratch:
        listed, target = Path(scratch, "requirements.txt"), Path(scratch, "layer")
        listed.write_text(requirements + "\n")
        progress(f"installing {', '.join(requirements.splitlines())}")
        _install(listed, target)
        shutil.rmtree(target / "bin", ignore_errors=True)
        archive = pack(target, keep_all=True)
    scratch_file = kept.with_suffix(".new")
    scratch_file.write_bytes(archive.data)
    scratch_file.replace(kept)
    return archive


def _install(listed: Path, target: Path) -> None:
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-compile",
        "--target", str(target), "--requirement", str(listed),
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"requirements.txt: pip took longer than {_BUILD_SECONDS:.0f} s") from error
    if done.returncode:
        if "No module named pip" in done.stderr:
            raise BuildError(
                f"requirements.txt needs pip, which {sys.executable} lacks; install pip there and deploy again"
            )
        errors = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        raise BuildError(f"requirements.txt: {'; '.join(errors) or done.stderr.strip()[-500:]}")
