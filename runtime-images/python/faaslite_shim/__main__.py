"""`python -P -S -m faaslite_shim` serves the function that the environment describes.

`FAASLITE_SHIM_LIBRARIES` names the folders (separated by colons) with httptools and uvloop.
"""

from __future__ import annotations

import os
import sys

from .bootstrap import import_libraries


def main() -> None:
    import_libraries([each for each in os.environ.pop("FAASLITE_SHIM_LIBRARIES", "").split(":") if each])
    from .server import run

    code = run(os.environ)
    sys.stdout.flush()
    os._exit(code)  # handlers' threads that never end must not hold up the exit


main()
