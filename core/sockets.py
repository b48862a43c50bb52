"""Unix sockets that nobody but their owner may connect to."""

from __future__ import annotations

import os
import socket
from pathlib import Path

__all__ = ["bind_private"]


def bind_private(path: Path, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """Bound, mode 0600 from its first moment on, non-blocking; in place of what a dead process left. `kind` is of `socket`. Raises OSError."""
    path.unlink(missing_ok=True)
    found = socket.socket(socket.AF_UNIX, kind)
    mask = os.umask(0o177)
    try:
        found.bind(str(path))
    except OSError:
        found.close()
        raise
    finally:
        os.umask(mask)
    found.setblocking(False)
    return found
