"""Whose a request is, before it has been authenticated: only to take turns by, never to allow anything.

A token that has been accepted before stands for its user. Whatever else is sent counts for the address that it came from, so that
made-up tokens bring nobody more turns.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Hashable, Mapping
from typing import Any

__all__ = ["Clients"]

_REMEMBERED = 4096


class Clients:
    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._users: dict[bytes, str] = {}
        self._last = ("", "")

    def seen(self, authorization: str, user: str) -> None:
        """The header has been accepted as that user's."""
        if not authorization or self._last == (authorization, user):
            return
        self._last = (authorization, user)
        digest = self._digest(authorization.encode("latin-1", "replace"))
        if digest not in self._users and len(self._users) >= _REMEMBERED:
            del self._users[next(iter(self._users))]
        self._users[digest] = user

    def of(self, scope: Mapping[str, Any]) -> Hashable:
        for name, value in scope["headers"]:
            if name == b"authorization":
                user = self._users.get(self._digest(value))
                if user is not None:
                    return user
                break
        return (scope.get("client") or ("",))[0], None

    def _digest(self, authorization: bytes) -> bytes:
        return hashlib.blake2b(authorization, key=self._key, digest_size=16).digest()
