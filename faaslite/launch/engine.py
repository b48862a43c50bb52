"""A cluster's share of a Docker engine: which one, under which mark, with which range of addresses; and how all of it is given back.

Kept in the data dir from the first start on Docker nodes until everything of ours is gone from the engine, so that a cluster whose
supervisor was killed finds its own again, or takes it away.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import secrets
import socket
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from ipaddress import IPv4Network, ip_network
from pathlib import Path
from typing import Any

from faaslite.launch.errors import LaunchError
from faaslite.launch.home import Home

__all__ = ["EngineShare", "clean", "free_range", "left", "settle"]

_DEFAULT = "unix:///var/run/docker.sock"
_SECONDS = 5.0
_RANGES = 191
STOP_SECONDS = 2
"""How long a container may take to end at `faas down`, when nobody calls it any more."""


@dataclass(frozen=True, slots=True)
class EngineShare:
    """`cluster` marks everything of ours on the engine at `url`; nodes have the 24-bit parts of `supernet`."""

    cluster: str
    url: str
    supernet: str

    def node(self, name: str) -> str:
        """The node's name among all clusters of the engine."""
        return f"{self.cluster}-{name}"

    @property
    def bridge(self) -> str:
        """This machine's address on the first node's bridge, which all containers of the cluster reach; "" where the engine is elsewhere."""
        return str(next(ip_network(self.pod_cidr(1)).hosts())) if self.url.startswith("unix://") else ""

    def pod_cidr(self, number: int) -> str:
        parts = list(ip_network(self.supernet).subnets(new_prefix=24))
        return str(parts[number])


def settle(home: Home) -> EngineShare:
    """The share of this cluster, as it was or anew. Raises LaunchError where no engine answers."""
    url = os.environ.get("DOCKER_HOST") or _DEFAULT
    found = left(home)
    if found is not None and found.url == url:
        _ask(url, "/_ping")
        return found
    if found is not None:
        clean(home)
    taken = [
        ip_network(each["Subnet"])
        for network in json.loads(_ask(url, "/networks"))
        for each in (network.get("IPAM") or {}).get("Config") or ()
        if ":" not in each.get("Subnet", ":")
    ]
    # Two clusters that settle at once don't see each other's range yet: each begins to look somewhere else.
    share = EngineShare(secrets.token_hex(3), url, free_range([*taken, *_routes()], begin=secrets.randbelow(_RANGES)))
    scratch = home.engine.with_suffix(f".{os.getpid()}")
    scratch.write_text(json.dumps(asdict(share)) + "\n")
    try:
        os.link(scratch, home.engine)
    except FileExistsError:
        return left(home) or share  # another node of this cluster came first
    finally:
        scratch.unlink()
    return share


def left(home: Home) -> EngineShare | None:
    """What was settled and not cleaned since."""
    try:
        return EngineShare(**json.loads(home.engine.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise LaunchError(f"{home.engine} can't be read: {error}; mend or remove it") from error


def has_image(share: EngineShare, name: str) -> bool:
    try:
        _ask(share.url, f"/images/{name}/json")
    except LaunchError:
        return False
    return True


def free_range(taken: Iterable[Any], begin: int = 0) -> str:
    """A /16 of the private ranges (RFC 1918) that overlaps with nothing that is in use.

    The search begins with the `begin`th of 10.244.0.0/16, 10.245.0.0/16 and so on, which are `_RANGES`, then tries 172.16.0.0/12.
    """
    used: Sequence[IPv4Network] = [each for each in taken if each.prefixlen]
    seconds = [*range(244, 255), *range(64, 244)]
    candidates = [f"10.{second}.0.0/16" for second in (*seconds[begin:], *seconds[:begin])]
    candidates += [f"172.{second}.0.0/16" for second in range(31, 15, -1)]
    for each in candidates:
        if not any(ip_network(each).overlaps(other) for other in used):
            return each
    raise LaunchError("every private range of addresses is in use on this machine; Docker nodes need a free /16")


def _routes() -> list[IPv4Network]:
    """What this machine has routes to, the default route left out (proc(5), net/route: little-endian hexadecimal)."""
    found = []
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        words = line.split()
        address, mask = (int.from_bytes(bytes.fromhex(words[at]), "little") for at in (1, 7))
        if mask:
            found.append(IPv4Network((address, mask.bit_count())))
    return found


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_SECONDS)
        self.sock.connect(self._path)


def _ask(url: str, path: str) -> bytes:
    """One GET of the engine's API, without the SDK: the supervisor is to stay small, and forks."""
    scheme, _, where = url.partition("://")
    if scheme not in ("unix", "tcp", "http"):
        raise LaunchError(f"the Docker engine at {url} can't be used: give unix:///path or tcp://host:port")
    connection = _UnixConnection(where) if scheme == "unix" else http.client.HTTPConnection(where, timeout=_SECONDS)
    try:
        connection.request("GET", path)
        reply = connection.getresponse()
        body = reply.read()
    except (OSError, http.client.HTTPException) as error:
        raise LaunchError(
            f"no Docker engine answers at {url} ({error}); start one, name it with DOCKER_HOST, or use --runtime process"
        ) from error
    finally:
        connection.close()
    if reply.status != 200:
        raise LaunchError(f"the Docker engine at {url} answered {reply.status} to {path}")
    return body


def clean(home: Home) -> int:
    """Take away everything of this cluster that its engine and this machine have: how many containers there were.

    Nothing to do is no error. Raises LaunchError where the engine doesn't answer: then it is to be tried again.
    """
    share = left(home)
    if share is None:
        return 0
    from core.node.runtime.base import RuntimeFailure

    try:
        count = asyncio.run(_clean(home, share))
    except RuntimeFailure as error:
        raise LaunchError(
            f"containers and networks of this cluster are left on the Docker engine: {error}; run `faas down` again once it answers"
        ) from error
    home.engine.unlink(missing_ok=True)
    return count


async def _clean(home: Home, share: EngineShare) -> int:
    from core.node.runtime.docker_cleaning import remove_all

    # Volumes of Pods that no longer run, Secrets among them, are made anew with the Pods.
    nodes = list(home.nodes.iterdir()) if home.nodes.is_dir() else []
    folders = [node / name for node in nodes for name in ("docker", "pods")]
    return await remove_all(share.url, share.cluster, folders, grace=STOP_SECONDS)
