"""Hears of credentials and rights that are taken away, so that whoever remembers an answer about them forgets it at once.

What is watched are ServiceAccounts (whose tokens end with them) and RoleBindings. Tokens that end by themselves need no word: an answer is
never remembered beyond the token's own end.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable

import msgspec

from core.api.kinds import ROLE_BINDING, SERVICE_ACCOUNT
from core.api.views import ObjectView
from core.client.informer import Informers

__all__ = ["token_end", "watch_withdrawals"]


class _Claims(msgspec.Struct):
    exp: float = 0.0


_claims = msgspec.json.Decoder(_Claims)


def watch_withdrawals(informers: Informers, forget: Callable[[], None]) -> None:
    """Have `forget` called whenever an account or a binding is changed or gone. A new account takes nothing from anybody; a new binding may
    give what was just refused."""
    accounts = informers.watch(SERVICE_ACCOUNT, ObjectView)
    bindings = informers.watch(ROLE_BINDING, ObjectView)

    def on_account(old: ObjectView | None, new: ObjectView | None) -> None:
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            forget()

    def on_binding(old: ObjectView | None, new: ObjectView | None) -> None:
        forget()

    accounts.add_handler(on_account)
    bindings.add_handler(on_binding)


def token_end(token: str) -> float | None:
    """When a JSON Web Token (RFC 7519) says that it ends, in seconds since the epoch; None for a token that says nothing of it. What it says
    is worth as much as whoever vouches for the token: ask only of one that was reviewed."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        found = _claims.decode(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        return None
    return found.exp or None
