"""Who is told when something is taken away."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest

from core.api.kinds import Kind
from core.api.views import ObjectView
from gateway.withdrawals import token_end, watch_withdrawals


class Watched:
    """Of informers, what is needed here: the handlers by kind."""

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}

    def watch(self, kind: Kind, _: type) -> Any:
        class One:
            def add_handler(_, handler: Any) -> None:
                self.handlers[kind.plural] = handler

        return One()


def account(uid: str) -> ObjectView:
    return msgspec.convert({"metadata": {"name": "a", "namespace": "n", "uid": uid}}, ObjectView)


def test_an_account_that_goes_or_is_another_one_is_a_withdrawal() -> None:
    told: list[None] = []
    watched = Watched()
    watch_withdrawals(watched, lambda: told.append(None))  # type: ignore[arg-type]
    on_account = watched.handlers["serviceaccounts"]
    on_account(None, account("1"))
    on_account(account("1"), account("1"))
    assert len(told) == 0
    on_account(account("1"), None)
    on_account(account("1"), account("2"))
    assert len(told) == 2
    watched.handlers["rolebindings"](account("1"), None)
    assert len(told) == 3


def token(claims: Any) -> str:
    return f"h.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.s"


@pytest.mark.parametrize(
    ("text", "ends"),
    [(token({"exp": 5}), 5.0), (token({}), None), ("opaque", None), ("a.b", None), ("a.!.c", None), (token([1]), None)],
)
def test_when_a_token_ends(text: str, ends: float | None) -> None:
    assert token_end(text) == ends
