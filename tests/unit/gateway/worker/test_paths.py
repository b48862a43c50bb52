"""Custom routes: who gets a path, and that no other team gets between."""

from __future__ import annotations

import pytest

from gateway.worker.paths import Paths
from gateway.worker.views import HttpRoute

OLD, LATER, LAST = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"


def paths(*rows: tuple[str, str, str, str]) -> Paths:
    """Rows are function.namespace, creation time, host, prefix."""
    found = Paths()
    for key, created, host, prefix in rows:
        found.put(key.encode(), created, [HttpRoute(host=host, path=prefix)])
    return found


def test_the_longest_prefix_of_ones_own_functions_has_it() -> None:
    found = paths(("shop.a", OLD, "a.example", "/"), ("pay.a", LATER, "a.example", "/pay"))
    assert found.find(b"a.example", b"/pay/now", b"GET") == b"pay.a"
    assert found.find(b"a.example", b"/payday", b"GET") == b"shop.a"


@pytest.mark.parametrize("prefix", ["/", "/pay", "/other"])
def test_a_host_is_the_namespaces_that_had_it_first(prefix: str) -> None:
    found = paths(("shop.a", OLD, "a.example", "/"), ("thief.b", LATER, "A.Example", prefix))
    assert found.find(b"a.example", b"/pay", b"GET") == b"shop.a"
    found.put(b"pay.a", LAST, [HttpRoute(host="a.example", path="/pay")])
    assert found.find(b"a.example", b"/pay", b"GET") == b"pay.a"
    for key in (b"shop.a", b"pay.a"):
        found.remove(key)
    assert found.find(b"a.example", f"{prefix}".encode(), b"GET") == b"thief.b"


def test_without_a_host_what_lies_below_a_prefix_is_its_namespaces() -> None:
    found = paths(("shop.a", OLD, "", "/shop"), ("thief.b", LATER, "", "/shop/pay"), ("fair.b", LATER, "", "/shops"))
    assert found.find(b"", b"/shop/pay", b"GET") == b"shop.a"
    assert found.find(b"", b"/shops", b"GET") == b"fair.b"


def test_who_came_first_to_a_longer_prefix_keeps_it() -> None:
    found = paths(("deep.b", OLD, "", "/shop/pay"), ("shop.a", LATER, "", "/shop"))
    assert found.find(b"", b"/shop/pay", b"GET") == b"deep.b"
    assert found.find(b"", b"/shop/else", b"GET") == b"shop.a"
