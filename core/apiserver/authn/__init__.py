"""Who makes a request: users, and bearer tokens from a fixed table.

It must not decide what a user may do; that is `core.apiserver.authz`.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from core.errors import Unauthorized

__all__ = ["ANONYMOUS", "AUTHENTICATED", "MASTERS", "UNAUTHENTICATED", "Authenticator", "User"]

MASTERS = "system:masters"
AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"


@dataclass(frozen=True, slots=True)
class User:
    """A person or a component, with the groups that rules speak of."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)

    def document(self) -> dict[str, object]:
        """`authentication.k8s.io/v1 UserInfo`."""
        found: dict[str, object] = {"username": self.name, "groups": list(self.groups)}
        if self.uid:
            found["uid"] = self.uid
        if self.extra:
            found["extra"] = {key: list(values) for key, values in self.extra.items()}
        return found


ANONYMOUS = User("system:anonymous", (UNAUTHENTICATED,))


class Authenticator:
    """Bearer tokens -> users.

    Tokens are looked up by a keyed digest, so that the time of a lookup tells nothing about how much of a guess was right.
    """

    def __init__(self, tokens: Mapping[str, User]) -> None:
        self._key = secrets.token_bytes(32)
        self._users = {self._digest(token): _authenticated(user) for token, user in tokens.items() if token}

    def _digest(self, token: str) -> bytes:
        return hashlib.blake2b(token.encode("utf-8", "surrogateescape"), key=self._key, digest_size=32).digest()

    def lookup(self, token: str) -> User | None:
        return self._users.get(self._digest(token))

    def authenticate(self, authorization: str) -> User:
        """The user of an `Authorization` header; anonymous without one. Raises `Unauthorized` for a token that nobody has."""
        if not authorization:
            return ANONYMOUS
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized("Unauthorized")
        user = self.lookup(token.strip())
        if user is None:
            raise Unauthorized("Unauthorized")
        return user


def _authenticated(user: User) -> User:
    return user if AUTHENTICATED in user.groups else replace(user, groups=(*user.groups, AUTHENTICATED))
