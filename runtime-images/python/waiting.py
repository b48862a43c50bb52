"""`python -P -S waiting.py`: a started container that waits, warm, for the function that it shall run.

The node's agent listens at `FAASLITE_CONTROL` (SOCK_SEQPACKET). This process has imported the shim before it connects, and
says so: `{"born": PID}`. One message comes back, the same as a parked child gets on process nodes:
`{"env": {...}, "directory": PATH}`; by then the package and the secrets have appeared at their places. The
environment is put over the image's own, and from there on this is an ordinary shim. An end of the connection before the message means that
nobody wants the container any more. No function code is loaded before the message, and one container serves one Pod only.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import random
import socket
import sys
import types
from typing import Any

MAX_MESSAGE = 1 << 20
STANDARD = (
    "base64", "csv", "dataclasses", "datetime", "decimal", "email.message", "enum", "hashlib", "hmac", "http.client", "inspect",
    "pathlib", "random", "secrets", "ssl", "string", "subprocess", "tempfile", "typing", "urllib.request", "uuid", "zoneinfo",
)  # fmt: skip


def warm_up() -> Any:
    """The shim's server, with what functions are likely to import imported too."""
    bootstrap = importlib.import_module("faaslite_shim.bootstrap")
    folders = os.environ.pop("FAASLITE_SHIM_LIBRARIES", "").split(":")
    bootstrap.import_libraries([each for each in folders if each])
    server = importlib.import_module("faaslite_shim.server")
    for name in STANDARD:
        with contextlib.suppress(ImportError):  # not every Python is built with all of them
            importlib.import_module(name)
    return server


def await_function(path: str) -> dict[str, Any] | None:
    """What to become; None where the agent has gone."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as control:
        try:
            control.connect(path)
            control.send(json.dumps({"born": os.getpid()}).encode())
            data = control.recv(MAX_MESSAGE)
        except (ConnectionError, FileNotFoundError):
            return None
    found: dict[str, Any] | None = json.loads(data) if data else None
    return found


def main() -> None:
    server = warm_up()
    loop = server.new_loop()
    gc.collect()
    gc.freeze()
    adoption = await_function(os.environ.pop("FAASLITE_CONTROL"))
    if adoption is None:
        os._exit(0)
    os.environ.update(adoption["env"])
    if adoption["directory"]:
        os.chdir(adoption["directory"])
    random.seed()
    sys.argv = ["function"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    code = 1
    try:
        code = server.run(os.environ, loop)
        sys.stdout.flush()
    finally:
        os._exit(code)  # handlers' threads that never end must not hold up the exit


if __name__ == "__main__":
    main()
