"""Cluster IPs and node ports: which are taken, and by whom.

The tables are in memory; they are rebuilt from the stored Services when the server starts, so that they can't disagree with them.
"""

from __future__ import annotations

import ipaddress
import random

__all__ = ["NODE_PORTS", "AddressPool", "AddressTaken", "PoolFull", "PortPool"]

NODE_PORTS = (30000, 32767)


class AddressTaken(ValueError):
    """The address belongs to another Service, or isn't of the range."""


class PoolFull(ValueError):
    """No address is left."""


class AddressPool:
    """Addresses of one range. The first and the last belong to nobody, the one after the first goes only to who asks for it: the API server."""

    def __init__(self, cidr: str) -> None:
        network = ipaddress.IPv4Network(cidr)
        self._low = int(network.network_address) + 2
        self._high = int(network.broadcast_address) - 1
        self._owners: dict[str, str] = {}
        self.cidr = cidr

    def take(self, owner: str, address: str = "") -> str:
        """`address`, or any that is free. Taking what one has is fine. Raises `AddressTaken`, `PoolFull`."""
        if address:
            if not self._within(address):
                raise AddressTaken(
                    f"the provided IP ({address}) is not in the valid range. The range of valid IPs is {self.cidr}"
                )
            if self._owners.setdefault(address, owner) != owner:
                raise AddressTaken("provided IP is already allocated")
            return address
        size = self._high - self._low + 1
        start = random.randrange(size)  # noqa: S311 (spreads addresses, keeps no secret)
        for step in range(size):
            found = str(ipaddress.IPv4Address(self._low + (start + step) % size))
            if found not in self._owners:
                self._owners[found] = owner
                return found
        raise PoolFull("range is full")

    def release(self, owner: str, address: str) -> None:
        """Give back what `owner` has; what it hasn't stays as it is."""
        if self._owners.get(address) == owner:
            del self._owners[address]

    def _within(self, address: str) -> bool:
        try:
            return self._low - 1 <= int(ipaddress.IPv4Address(address)) <= self._high
        except ValueError:
            return False


class PortPool:
    """Node ports. One number may serve several protocols of its Service."""

    def __init__(self, low: int = NODE_PORTS[0], high: int = NODE_PORTS[1]) -> None:
        self._low, self._high = low, high
        self._owners: dict[int, str] = {}

    def take(self, owner: str, port: int = 0) -> int:
        """`port`, or any that is free. Raises `AddressTaken`, `PoolFull`."""
        if port:
            if not self._low <= port <= self._high:
                raise AddressTaken(
                    f"provided port is not in the valid range. The range of valid ports is {self._low}-{self._high}"
                )
            if self._owners.setdefault(port, owner) != owner:
                raise AddressTaken("provided port is already allocated")
            return port
        size = self._high - self._low + 1
        start = random.randrange(size)  # noqa: S311 (spreads ports, keeps no secret)
        for step in range(size):
            found = self._low + (start + step) % size
            if found not in self._owners:
                self._owners[found] = owner
                return found
        raise PoolFull("range is full")

    def keep(self, owner: str, ports: set[int]) -> None:
        """Give back what `owner` has besides `ports`."""
        for port in [port for port, who in self._owners.items() if who == owner and port not in ports]:
            del self._owners[port]
