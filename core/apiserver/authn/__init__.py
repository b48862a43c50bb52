"""Who makes a request: client certificates, bearer tokens from a fixed table, and the tokens of ServiceAccounts.

It must not decide what a user may do; that is `core.apiserver.authz`.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace

from core.apiserver.authn.bootstrap import BootstrapTokens
from core.apiserver.authn.certificates import Certificates
from core.apiserver.authn.oidc import Oidc
from core.apiserver.authn.tokens import AUDIENCE, ServiceAccountTokens
from core.apiserver.authn.users import User
from core.clock import wall
from core.errors import Unauthorized

__all__ = ["ANONYMOUS", "AUTHENTICATED", "MASTERS", "UNAUTHENTICATED", "Authenticator", "User"]

log = logging.getLogger(__name__)

MASTERS = "system:masters"
AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"


ANONYMOUS = User("system:anonymous", (UNAUTHENTICATED,))


class Authenticator:
    """Bearer tokens -> users.

    Tokens are looked up by a keyed digest, so that the time of a lookup tells nothing about how much of a guess was right.
    """

    def __init__(
        self,
        tokens: Mapping[str, User],
        accounts: ServiceAccountTokens | None = None,
        bootstrap: BootstrapTokens | None = None,
        oidc: Oidc | None = None,
    ) -> None:
        self._accounts = accounts
        self._bootstrap = bootstrap
        self._oidc = oidc
        self._certificates = Certificates()
        self._key = secrets.token_bytes(32)
        self._users = {self._digest(token): _authenticated(user) for token, user in tokens.items() if token}

    def _digest(self, token: str) -> bytes:
        return hashlib.blake2b(token.encode("utf-8", "surrogateescape"), key=self._key, digest_size=32).digest()

    def lookup(self, token: str) -> User | None:
        return self._users.get(self._digest(token))

    async def review(self, token: str, audiences: Sequence[str] = ()) -> tuple[User, list[str]] | None:
        """Whose token it is and for which of `audiences` (none: the API server's); None where nobody's."""
        wanted = list(audiences) or [AUDIENCE]
        user = self.lookup(token)
        if user is not None:
            return user, wanted
        found = None if self._accounts is None else await self._accounts.user(token, wanted)
        if found is not None or self._bootstrap is None or AUDIENCE not in wanted:
            return found
        user = await self._bootstrap.user(token)
        if user is None and self._oidc is not None:
            user = await self._oidc.user(token)
        return None if user is None else (user, [AUDIENCE])

    async def authenticate(self, authorization: str, certificate: str = "") -> User:
        """The user of a client certificate (PEM) or of an `Authorization` header; anonymous without either.

        Raises `Unauthorized` for a token that nobody has, or a certificate that is worth nothing where there is no token.
        """
        if certificate:
            owner = self._certificates.user(certificate, wall())
            if owner is not None:
                return owner
            if not authorization:
                log.info("a client certificate was refused: it has expired, or is for no user")
                raise Unauthorized("Unauthorized")
        if not authorization:
            return ANONYMOUS
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized("Unauthorized")
        user = self.lookup(token.strip())
        if user is not None:
            return user
        found = await self.review(token.strip())
        if found is None:
            raise Unauthorized("Unauthorized")
        return found[0]


def _authenticated(user: User) -> User:
    return user if AUTHENTICATED in user.groups else replace(user, groups=(*user.groups, AUTHENTICATED))
