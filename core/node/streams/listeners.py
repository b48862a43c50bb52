"""Who listens at an address of the loopback network, which every Pod of a process node has one of (proc_pid_net(5), `tcp`)."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

__all__ = ["listens", "listens_here"]

_LISTEN = "0A"


def listens(table: str, address: str, port: int) -> bool:
    """Whether `table` has a listener at exactly that IPv4 address: one at every address of the machine is somebody else's."""
    (number,) = struct.unpack("=I", socket.inet_aton(address))
    wanted = f"{number:08X}:{port:04X}"
    return any(fields[1] == wanted and fields[3] == _LISTEN for fields in map(str.split, table.splitlines()[1:]))


def listens_here(address: str, port: int) -> bool:
    """As this machine's kernel has it now."""
    return listens(Path("/proc/self/net/tcp").read_text(), address, port)
