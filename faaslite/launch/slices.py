"""Which part of 127/8 each process node gives its Pods addresses from, so that clusters live side by side on one machine.

A node takes a /16. The claim is a socket bound to the slice's last address at the port that functions listen on, held as
long as the cluster runs: the kernel refuses it to everyone else, and lets it go however the cluster ends.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence

from faaslite.launch.errors import LaunchError

__all__ = ["FIRST", "LAST", "cidr", "claim"]

FIRST, LAST = 65, 254
"""The second byte of the slices: what lies below is for Services, and for people."""


def cidr(number: int) -> str:
    """The slice as a network."""
    return f"127.{number}.0.0/16"


def claim(count: int, preferred: Sequence[int], port: int) -> list[tuple[int, socket.socket]]:
    """`count` slices with the sockets that hold them, those of the last time where they are free.

    Raises LaunchError: too few are free, or a program listens on `port` of every address, which leaves functions none.
    """
    found: list[tuple[int, socket.socket]] = []
    for number in dict.fromkeys((*preferred, *range(FIRST, LAST + 1))):
        if len(found) == count:
            break
        holder = _hold(number, port)
        if holder is not None:
            found.append((number, holder))
    if len(found) == count:
        return found
    for _, holder in found:
        holder.close()
    if not found:
        raise LaunchError(f"functions listen on port {port}, which another program has taken on every address; stop it")
    raise LaunchError(
        f"{count} nodes need as many networks of 127.0.0.0/8, and {len(found)} are free; use fewer --nodes"
    )


def _hold(number: int, port: int) -> socket.socket | None:
    holder = socket.socket()
    try:
        holder.bind((f"127.{number}.255.254", port))
    except OSError as error:
        holder.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise LaunchError(f"127.{number}.0.0/16 can't be used for functions: {error.strerror}") from error
    return holder
