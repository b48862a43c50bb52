from __future__ import annotations

import pytest

from core.node.addresses import AddressPool, NoAddresses


def test_given_back_is_given_last() -> None:
    pool = AddressPool("127.65.0.0/29")
    found = [pool.allocate() for _ in range(3)]
    assert found == ["127.65.0.1", "127.65.0.2", "127.65.0.3"]
    pool.release("127.65.0.1")
    assert [pool.allocate() for _ in range(4)] == ["127.65.0.4", "127.65.0.5", "127.65.0.6", "127.65.0.1"]
    with pytest.raises(NoAddresses):
        pool.allocate()


def test_what_runs_is_in_use() -> None:
    pool = AddressPool("10.0.0.0/28", reserved=1)
    pool.take("10.0.0.5")
    pool.take("192.168.0.1")
    assert pool.allocate() == "10.0.0.6"


def test_a_start_in_the_range() -> None:
    pool = AddressPool("127.65.0.0/29", start=4 + 6 * 1000)
    assert [pool.allocate() for _ in range(3)] == ["127.65.0.5", "127.65.0.6", "127.65.0.1"]


def test_too_small() -> None:
    with pytest.raises(ValueError, match="no room"):
        AddressPool("10.0.0.0/31")
