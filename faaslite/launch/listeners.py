"""The sockets that the supervisor binds and hands down, so that they outlive the processes that accept from them."""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
from pathlib import Path

from core.sockets import bind_private
from faaslite.launch.errors import LaunchError

__all__ = ["bind", "bind_unix", "interface_addresses"]

_BACKLOG = 2048
_SIOCGIFADDR = 0x8915
_IP_FREEBIND = 15


def bind(
    address: str, port: int, what: str, flag: str, *, shares: int = 1, coming: bool = False
) -> list[socket.socket]:
    """`shares` listening sockets on one port (SO_REUSEPORT where more than one); port 0 takes a free one. `coming`: the address may be one that
    this machine doesn't have yet (ip(7), IP_FREEBIND).

    SO_REUSEPORT would quietly share a port with another process of the same user, so the port is first asked for without.

    Raises LaunchError that says who can't listen where, and which flag chooses another place.
    """
    found: list[socket.socket] = []
    try:
        if port and shares > 1:
            _listen(address, port, shared=False, coming=coming).close()
        for _ in range(shares):
            found.append(_listen(address, port, shared=shares > 1, coming=coming))
            port = found[0].getsockname()[1]
    except OSError as error:
        for each in found:
            each.close()
        raise LaunchError(
            f"{what} can't listen on {address}:{port}: {_reason(error)}; choose another with {flag}"
        ) from error
    return found


def bind_unix(path: Path) -> socket.socket:
    """A listening Unix socket that its owner alone may connect to; one that a dead process left is replaced. Raises LaunchError."""
    try:
        listener = bind_private(path)
    except OSError as error:
        raise LaunchError(f"nobody can listen at {path}: {error.strerror or error}") from error
    listener.listen(_BACKLOG)
    return listener


def _listen(address: str, port: int, *, shared: bool, coming: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if coming:
            listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        listener.bind((address, port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is in use"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address"
    if error.errno == errno.EACCES:
        return "ports under 1024 need root"
    return error.strerror or str(error)


def interface_addresses() -> list[str]:
    """This machine's IPv4 addresses, one an interface (netdevice(7)): what it is reached at, whatever its host name means to itself."""
    found = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(asking, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue  # it has none
            found.add(socket.inet_ntoa(answer[20:24]))
    return sorted(found)
