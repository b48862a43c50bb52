"""One look at a container, over HTTP, TCP or a command: what probes and lifecycle hooks have in common."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.api import release, views
from core.node.runtime.base import RuntimeFailure

__all__ = ["Checked", "Target", "check"]

_MOST = 10 * 1024


@dataclass(frozen=True, slots=True)
class Checked:
    ok: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """A container, as far as a look at it needs: its address, its ports by name, and how to run a command in it."""

    address: str
    ports: Mapping[str, int]
    exec: Callable[[Sequence[str], float], Awaitable[tuple[int, bytes]]]

    @classmethod
    def of(
        cls,
        container: views.Container,
        address: str,
        exec: Callable[[Sequence[str], float], Awaitable[tuple[int, bytes]]],
    ) -> Target:
        return cls(address, {each.name: each.container_port for each in container.ports if each.name}, exec)

    def port(self, port: Any) -> int:
        """ValueError for a name that no port has."""
        if isinstance(port, str) and not port.isdigit():
            if port not in self.ports:
                raise ValueError(f"the container has no port named {port!r}")
            return self.ports[port]
        return int(port)


async def check(action: Mapping[str, Any], target: Target, timeout: float) -> Checked:
    """Carry out a `v1.Probe` or `v1.LifecycleHandler`, given as {httpGet | tcpSocket | exec | sleep: ...}; never raises for a failure."""
    try:
        async with asyncio.timeout(timeout):
            if found := action.get("httpGet"):
                return await _http(found, target)
            if found := action.get("tcpSocket"):
                _, writer = await asyncio.open_connection(
                    found.get("host") or target.address, target.port(found["port"])
                )
                writer.close()
                return Checked(True)
            if found := action.get("exec"):
                code, output = await target.exec(found.get("command") or (), timeout)
                return Checked(code == 0, output[:_MOST].decode(errors="replace").strip() if code else "")
            if found := action.get("sleep"):
                await asyncio.sleep(float(found.get("seconds", 0)))
                return Checked(True)
    except TimeoutError:
        return Checked(False, f"no answer within {timeout:g} s")
    except (OSError, ValueError, KeyError, RuntimeFailure, asyncio.IncompleteReadError) as error:
        return Checked(False, str(error) or type(error).__name__)
    return Checked(False, f"this node doesn't serve checks of type {', '.join(action) or 'nothing'}")


def _unverified() -> ssl.SSLContext:
    """A container's own certificate is for its users, not for its node: the kubelet doesn't verify it either."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _http(action: Mapping[str, Any], target: Target) -> Checked:
    host, port = action.get("host") or target.address, target.port(action["port"])
    path = action.get("path") or "/"
    secure = str(action.get("scheme", "HTTP")).upper() == "HTTPS"
    headers = {
        "Host": f"{host}:{port}",
        "User-Agent": f"kube-probe/{release.MAJOR}.{release.MINOR}",
        "Accept": "*/*",
        "Connection": "close",
    }
    headers |= {str(each["name"]).title(): str(each["value"]) for each in action.get("httpHeaders") or ()}
    lines = [f"GET {path if path.startswith('/') else '/' + path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if any("\r" in each or "\n" in each for each in lines):
        raise ValueError("line breaks in a path or header")
    reader, writer = await asyncio.open_connection(host, port, ssl=_unverified() if secure else None, limit=1 << 14)
    try:
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        status = await reader.readline()
    finally:
        writer.close()
    parts = status.split(None, 2)
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/") or not parts[1].isdigit():
        return Checked(False, "the answer isn't HTTP")
    code = int(parts[1])
    return Checked(200 <= code < 400, f"HTTP probe failed with statuscode: {code}")
