"""Files that ship with the platform and are not Python modules of it."""

from __future__ import annotations

from pathlib import Path

import faaslite
from faaslite.launch.errors import LaunchError

__all__ = ["runtime_images"]


def runtime_images() -> Path:
    """The folder of the runtime images: beside the packages in a checkout, inside `faaslite` once installed."""
    package = Path(faaslite.__file__).parent
    for each in (package / "runtime-images", package.parent / "runtime-images"):
        if (each / "python").is_dir():
            return each
    raise LaunchError("the runtime images are missing from this installation; install faaslite again")
