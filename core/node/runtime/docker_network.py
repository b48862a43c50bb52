"""A node's bridge on its Docker engine, and the way from the bridge of one node to that of another.

Each node has a bridge of its own with its Pod CIDR. The engine keeps bridges apart and rewrites the sender's address of what leaves
one. Where nodes share an engine, packets between their ranges are let through before the engine's own rules are asked, and
keep their sender; the rules bear the cluster's mark in their comment, by which they are found and taken away again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shlex
from collections.abc import Mapping, Sequence
from ipaddress import ip_network

from core.node.runtime.base import RuntimeFailure
from core.node.runtime.docker_engine import Absent, Conflicting, Engine

__all__ = ["close_routes", "ensure_network", "open_routes", "remove_network", "rules"]

log = logging.getLogger(__name__)

_MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
_BRIDGE = "com.docker.network.bridge.name"
_USERS, _ALL = "DOCKER-USER", "FORWARD"


async def ensure_network(
    engine: Engine, name: str, cidr: str, labels: Mapping[str, str], *, bridge: str = "", masquerade: bool = True
) -> None:
    """Make the bridge where it is missing. Raises `RuntimeFailure` where it can't be had with this range."""
    found = await engine.do("networks", names=[f"^{name}$"])
    if found:
        subnets = [each.get("Subnet") for each in found[0]["IPAM"]["Config"] or ()]
        if cidr not in subnets:
            raise RuntimeFailure(
                f"the Docker network {name} has the subnet {', '.join(map(str, subnets))}, not {cidr}; remove it first"
            )
        return
    options = {_MASQUERADE: "true" if masquerade else "false", **({_BRIDGE: bridge} if bridge else {})}
    gateway = str(next(ip_network(cidr).hosts()))
    try:
        await engine.do(
            "create_network", name, driver="bridge", options=options, check_duplicate=True,
            ipam={"Driver": "default", "Config": [{"Subnet": cidr, "Gateway": gateway}]}, labels=dict(labels),
        )  # fmt: skip
    except Conflicting:
        log.debug("the network %s came from elsewhere meanwhile", name)


async def remove_network(engine: Engine, name: str) -> None:
    with contextlib.suppress(Absent):
        await engine.do("remove_network", name)


def rules(supernet: str, mark: str, chain: str = _USERS) -> Sequence[tuple[str, str, list[str]]]:
    """(table, chain, rule) of what lets the ranges within `supernet` reach each other with their own addresses, and the rest of the
    world with this machine's."""
    said = ["-m", "comment", "--comment", mark]
    return [
        ("filter", chain, ["-s", supernet, "-d", supernet, *said, "-j", "ACCEPT"]),
        ("nat", "POSTROUTING", ["-s", supernet, "!", "-d", supernet, *said, "-j", "MASQUERADE"]),
    ]


async def open_routes(supernet: str, mark: str) -> None:
    """May be called again, and by several nodes at once. Raises `RuntimeFailure` where this machine's rules can't be changed."""
    # An engine that was told to leave this machine's rules alone has made no chain for its users.
    ours = (await _iptables("-t", "filter", "-S", _USERS))[0] == 0
    for table, chain, rule in rules(supernet, mark, _USERS if ours else _ALL):
        code, _ = await _iptables("-t", table, "-C", chain, *rule)
        if code != 0:
            code, said = await _iptables("-t", table, "-I", chain, *rule)
            if code != 0:
                raise RuntimeFailure(f"Pods of different nodes can't reach each other: iptables says {said}")


async def close_routes(mark: str) -> None:
    """Take every rule with that mark away, doubles included."""
    for table, chain in (("filter", _USERS), ("filter", _ALL), ("nat", "POSTROUTING")):
        code, said = await _iptables("-t", table, "-S", chain)
        for line in said.splitlines() if code == 0 else ():
            words = shlex.split(line)
            if words[0] == "-A" and mark in words:
                await _iptables("-t", table, "-D", *words[1:])


async def _iptables(*arguments: str) -> tuple[int, str]:
    """Exit code and output; 127 where there is no iptables."""
    try:
        process = await asyncio.create_subprocess_exec(
            "iptables", "-w", "5", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
    except OSError as error:
        return 127, str(error)
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode(errors="replace").strip()
