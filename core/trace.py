"""An opt-in trace of what happens when, across the processes of one machine.

Where `FAASLITE_TRACE_DIR` names a folder, `mark` appends a line `NANOSECONDS EVENT KEY` to the file `PID` in it. The time is that of
CLOCK_MONOTONIC, which all processes of a machine share, so that the lines of all files make one story. Callers ask
`trace.ON` first: where nobody traces, a mark costs that look and nothing else.
"""

from __future__ import annotations

import os
from time import monotonic_ns

__all__ = ["ON", "mark"]

_FOLDER = os.environ.get("FAASLITE_TRACE_DIR", "")
ON = bool(_FOLDER)
_file = -1


def mark(event: str, key: str) -> None:
    """Write down that `event` happened to `key` (an object's `namespace/name`) just now. Blocks as long as a write to a file does."""
    global _file
    now = monotonic_ns()
    if _file < 0:
        path = os.path.join(_FOLDER, str(os.getpid()))
        _file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.write(_file, f"{now} {event} {key}\n".encode())


def _forked() -> None:
    """A child has a file of its own."""
    global _file
    if _file >= 0:
        os.close(_file)
        _file = -1


if ON:
    os.register_at_fork(after_in_child=_forked)
