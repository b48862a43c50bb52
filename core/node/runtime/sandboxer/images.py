"""The runtime images that a process node has: folders of this project, each with a zygote for its language."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PREFIX", "RuntimeImage", "find_images", "image_name", "image_root"]

PREFIX = "faaslite/"


@dataclass(frozen=True, slots=True)
class RuntimeImage:
    """How the base of an image is started, and what its processes read besides the system's folders."""

    name: str
    folder: Path
    command: tuple[str, ...]
    libraries: tuple[str, ...]
    folders: tuple[str, ...]


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
        prefixes = dict.fromkeys((sys.base_prefix, sys.base_exec_prefix))
        found[f"{PREFIX}python"] = RuntimeImage(f"{PREFIX}python", root / "python", command, libraries, tuple(prefixes))
    return found
