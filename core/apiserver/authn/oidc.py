"""ID tokens of an OpenID Connect issuer as bearer tokens: the users of a company's own identity provider.

After https://kubernetes.io/docs/reference/access-authn-authz/authentication/#openid-connect-tokens, with one rule more: no claim makes a name or group
that begins with `system:`, for those are the cluster's own. Every doubt is a refusal, and the log says which.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt

from core.apiserver.authn.issuer import IssuerError, IssuerKeys
from core.apiserver.authn.users import User
from core.clock import monotonic, wall

__all__ = ["ALGORITHMS", "Oidc", "OidcSettings"]

log = logging.getLogger(__name__)

ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512")
"""Those with a public key: a token that is signed with a shared secret, or with nothing, is never taken."""
_LEEWAY = 10.0
"""Seconds that the clocks of the issuer and ours may differ."""
_MAX_KNOWN = 4096
_MAX_BYTES = 64 * 1024
_OWN = "system:"


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """The names are those of kube-apiserver's flags. `username_prefix` None: the issuer's URL and `#`, or none for e-mail addresses; `-`: none."""

    issuer_url: str
    client_id: str
    username_claim: str = "sub"
    username_prefix: str | None = None
    groups_claim: str = ""
    groups_prefix: str = ""
    required_claims: Mapping[str, str] = field(default_factory=dict)
    signing_algs: tuple[str, ...] = ("RS256",)

    @property
    def prefix(self) -> str:
        if self.username_prefix is None:
            return "" if self.username_claim == "email" else f"{self.issuer_url}#"
        return "" if self.username_prefix == "-" else self.username_prefix


class _Refused(Exception):
    pass


class Oidc:
    """Token -> user. What was verified once isn't verified again while the issuer's keys stay the same."""

    def __init__(self, settings: OidcSettings, context: ssl.SSLContext, clock: Callable[[], float] = wall) -> None:
        self._settings = settings
        self._keys = IssuerKeys(settings.issuer_url, context)
        self._clock = clock
        self._known: dict[str, tuple[User, float, float]] = {}
        self._generation = 0
        self._said = 0.0
        self._unsaid = 0

    async def user(self, token: str) -> User | None:
        """Whose token it is; None where it is none of this issuer's or isn't good. Never raises, and never waits long."""
        if self._generation != self._keys.generation:
            self._generation = self._keys.generation
            self._known.clear()
        now = self._clock()
        known = self._known.get(token)
        if known is not None:
            if known[1] - _LEEWAY <= now < known[2]:
                return known[0]
            del self._known[token]
        if len(token) > _MAX_BYTES or self._issuer(token) != self._settings.issuer_url:
            return None
        try:
            claims = await self._verified(token)
            found = self._user(claims)
        except (_Refused, IssuerError, jwt.PyJWTError) as error:
            self._say(str(error))
            return None
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known[token] = (found, float(claims.get("nbf", 0)), float(claims["exp"]))
        return found

    async def close(self) -> None:
        await self._keys.close()

    def _issuer(self, token: str) -> object:
        """What the token says of itself, which proves nothing."""
        try:
            return jwt.decode_complete(token, options={"verify_signature": False})["payload"].get("iss")
        except (jwt.PyJWTError, ValueError, RecursionError):
            return None

    async def _verified(self, token: str) -> dict[str, Any]:
        settings = self._settings
        header = jwt.get_unverified_header(token)
        if header.get("alg") not in settings.signing_algs:
            raise _Refused(
                f"it is signed with {header.get('alg')!r}, and {', '.join(settings.signing_algs)} is expected"
            )
        if "crit" in header:
            raise _Refused("its header has critical extensions, which nobody here understands")
        key = await self._keys.key(str(header.get("kid") or ""))
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=list(settings.signing_algs),
            audience=settings.client_id,
            issuer=settings.issuer_url,
            leeway=_LEEWAY,
            options={"require": ["exp", "iss", "aud"]},
        )
        return claims

    def _user(self, claims: Mapping[str, Any]) -> User:
        settings = self._settings
        for name, value in settings.required_claims.items():
            if claims.get(name) != value:
                raise _Refused(f"its claim {name} isn't {value!r}")
        said = claims.get(settings.username_claim)
        if not isinstance(said, str) or not said:
            raise _Refused(f"its claim {settings.username_claim}, which is the user's name, is missing")
        if settings.username_claim == "email" and claims.get("email_verified", True) is not True:
            raise _Refused("its e-mail address isn't verified")
        name = settings.prefix + said
        if name.startswith(_OWN):
            raise _Refused(f"the user {name!r} would be one of the cluster's own")
        groups = claims.get(settings.groups_claim, []) if settings.groups_claim else []
        if isinstance(groups, str):
            groups = [groups]
        if not isinstance(groups, list) or not all(isinstance(each, str) for each in groups):
            raise _Refused(f"its claim {settings.groups_claim} is no list of groups")
        given = [settings.groups_prefix + each for each in groups]
        if own := [each for each in given if each.startswith(_OWN)]:
            raise _Refused(f"the group {own[0]!r} is one of the cluster's own")
        return User(name, (*given, "system:authenticated"))

    def _say(self, why: str) -> None:
        """Once a second at most, so that nobody fills the log."""
        now = monotonic()
        if now - self._said < 1.0:
            self._unsaid += 1
            return
        more = f" ({self._unsaid} more were refused since the last one)" if self._unsaid else ""
        self._said, self._unsaid = now, 0
        log.info("a token of %s was refused: %s%s", self._settings.issuer_url, why, more)
