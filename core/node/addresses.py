"""Addresses of Pods, where the agent assigns them.

They are handed out in order, so that one that was just given back is the last to be given again. What is in use is known
from what runs (`take`), nothing is written down.
"""

from __future__ import annotations

import ipaddress

from core.node.runtime.base import RuntimeFailure

__all__ = ["AddressPool", "NoAddresses"]


class NoAddresses(RuntimeFailure):
    """Every address of the node's range is in use."""

    reason = "NoAddresses"


class AddressPool:
    """`cidr` such as `127.64.0.0/16`; its first and last address are never given, `reserved` more at its begin neither.

    `start` is where in the range it begins, of any size: clusters of one machine that share a range keep out of each other's way.
    """

    def __init__(self, cidr: str, reserved: int = 0, start: int = 0) -> None:
        network = ipaddress.ip_network(cidr)
        self._first = int(network.network_address) + 1 + reserved
        self._count = network.num_addresses - 2 - reserved
        if self._count < 1:
            raise ValueError(f"{cidr} has no room for Pods")
        self._next = start % self._count
        self._used: set[int] = set()

    def allocate(self) -> str:
        """Raises `NoAddresses`."""
        if len(self._used) >= self._count:
            raise NoAddresses(f"all {self._count} addresses of this node are in use")
        while self._next in self._used:
            self._next = (self._next + 1) % self._count
        found = self._next
        self._used.add(found)
        self._next = (found + 1) % self._count
        return str(ipaddress.ip_address(self._first + found))

    def take(self, address: str) -> None:
        """An address that is in use already; one out of the range is none of ours."""
        number = int(ipaddress.ip_address(address)) - self._first
        if 0 <= number < self._count:
            self._used.add(number)
            self._next = max(self._next, (number + 1) % self._count)

    def release(self, address: str) -> None:
        if address:
            self._used.discard(int(ipaddress.ip_address(address)) - self._first)
