"""The other end of the supervisor's control socket, for the CLI."""

from __future__ import annotations

import json
import socket
from contextlib import closing
from typing import Any

from faaslite.launch.errors import LaunchError, NotRunning
from faaslite.launch.home import Home

__all__ = ["ask", "stop"]


def ask(home: Home, operation: str, *, timeout: float = 5.0) -> dict[str, Any]:
    """The supervisor's answer to `status` or `stop`. Raises NotRunning, LaunchError."""
    with closing(_connect(home, timeout)) as connection:
        return _exchange(connection, operation)


def stop(home: Home, *, timeout: float = 60.0) -> None:
    """Stop the platform and return when all of it is gone. Raises NotRunning; LaunchError where it takes longer than `timeout` seconds."""
    with closing(_connect(home, timeout)) as connection:
        _exchange(connection, "stop")
        try:
            while connection.recv(4096):
                pass
        except ConnectionResetError:
            return
        except TimeoutError as error:
            raise LaunchError(f"the platform hasn't stopped after {timeout:.0f} s; see {home.logs}") from error


def _connect(home: Home, timeout: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    try:
        connection.connect(str(home.supervisor_socket))
    except (FileNotFoundError, ConnectionRefusedError) as error:
        connection.close()
        raise NotRunning(f"faaslite is not running in {home.path}; start it with `faas up`") from error
    except OSError as error:
        connection.close()
        raise LaunchError(f"the supervisor in {home.path} can't be reached: {error}") from error
    return connection


def _exchange(connection: socket.socket, operation: str) -> dict[str, Any]:
    connection.sendall(json.dumps({"op": operation}).encode() + b"\n")
    answer = bytearray()
    while not answer.endswith(b"\n"):
        data = connection.recv(65536)
        if not data:
            raise LaunchError("the supervisor ended while it was asked; try again")
        answer += data
    found: dict[str, Any] = json.loads(answer)
    return found
