"""The runtime images that a process node has: folders of this project, each with a zygote for its language."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["PREFIX", "RuntimeImage", "find_images", "fits", "image_name", "image_root", "with_version"]

PREFIX = "faaslite/"


@dataclass(frozen=True, slots=True)
class RuntimeImage:
    """How the base of an image is started, and what its processes read besides the system's folders.

    `entrypoint` is the command that a confined child becomes, for runtimes other than the base's own; their dependency layer is a
    volume like any other.
    """

    name: str
    folder: Path
    command: tuple[str, ...]
    libraries: tuple[str, ...]
    folders: tuple[str, ...]
    entrypoint: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    """What its processes are given unless the container says otherwise."""
    parks: bool = True
    """Whether children wait for Pods to come: what runs now and then needs none."""

    @property
    def base(self) -> str:
        """The image whose base process it is forked from."""
        return self.name.partition("+")[0]


def image_root() -> Path:
    """The folder `runtime-images`: of the checkout, or of the installed distribution."""
    checkout = Path(__file__).resolve().parents[4]
    candidates = (checkout / "runtime-images", checkout / "faaslite" / "runtime-images")
    for each in candidates:
        if each.is_dir():
            return each
    raise FileNotFoundError(f"no runtime images at {' or '.join(str(each) for each in candidates)}")


def image_name(image: str) -> str:
    """`faaslite/python` for `faaslite/python:3.11`: on process nodes there is one version of each, the node's own."""
    name = image.partition("@")[0]
    head, slash, tail = name.rpartition("/")
    return f"{head}{slash}{tail.partition(':')[0]}"


def find_images(root: Path) -> dict[str, RuntimeImage]:
    """What `root` offers, by image name."""
    found: dict[str, RuntimeImage] = {}
    zygote = root / "python" / "zygote.py"
    if zygote.is_file():
        spec = importlib.util.find_spec("httptools")
        assert spec is not None and spec.origin is not None
        libraries = (str(Path(spec.origin).parent.parent),)
        command = (sys.executable, "-I", "-S", "-X", "utf8", str(zygote))
        prefixes = tuple(dict.fromkeys((sys.base_prefix, sys.base_exec_prefix)))
        found[f"{PREFIX}python"] = RuntimeImage(f"{PREFIX}python", root / "python", command, libraries, prefixes)
        main, node = root / "node" / "shim" / "main.mjs", shutil.which("node")
        if main.is_file() and node is not None:
            program = os.path.realpath(node)
            folder = str(Path(program).parent.parent)
            own = () if folder == "/usr" else (folder,)
            # Modules are looked for from where their volumes are, not from where these links of a Pod's tree lead.
            entrypoint = (program, "--preserve-symlinks", "--preserve-symlinks-main", str(main))
            folders = (*prefixes, str(main.parent), *own)
            found[f"{PREFIX}node"] = RuntimeImage(
                f"{PREFIX}node", root / "python", command, libraries, folders, entrypoint
            )
    return found


def with_version(image: RuntimeImage) -> str:
    """`faaslite/python:3.11`, `faaslite/node:20`. Asks a program other than this one for its version, which takes 50 ms: not for an event loop."""
    return _with_version(image.name, image.entrypoint)


@functools.cache
def _with_version(name: str, entrypoint: tuple[str, ...]) -> str:
    if not entrypoint:
        return f"{name}:{sys.version_info.major}.{sys.version_info.minor}"
    done = subprocess.run([entrypoint[0], "--version"], capture_output=True, text=True, check=False, timeout=10.0)
    major = done.stdout.strip().lstrip("v").partition(".")[0]
    return f"{name}:{major}" if major.isdigit() else name


def fits(image: str, known: Iterable[str]) -> bool:
    """Whether `image` is among `known` (names with versions): any version where it names none, or `latest`."""
    name = image_name(image)
    tag = image.partition("@")[0].rpartition("/")[2].partition(":")[2]
    return any(image_name(each) == name and tag in ("", "latest", each.rpartition(":")[2]) for each in known)
