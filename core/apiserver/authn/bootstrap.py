"""Bootstrap tokens: `ID.SECRET`, kept as Secrets in `kube-system`, with which a node joins before it has a certificate.

After https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/. What they may do is RBAC's: ask for a node's certificate.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import re
from collections.abc import Callable

import msgspec

from core.apiserver.authn.users import User
from core.clock import parse_time, wall
from core.store.base import Store

__all__ = ["BootstrapTokens"]

log = logging.getLogger(__name__)

GROUP = "system:bootstrappers"
TYPE = "bootstrap.kubernetes.io/token"
_TOKEN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
_EXTRA = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]")


class _Metadata(msgspec.Struct, rename="camel"):
    deletion_timestamp: str | None = None


class _Secret(msgspec.Struct):
    metadata: _Metadata
    type: str = ""
    data: dict[str, str] | None = None


_secret = msgspec.json.Decoder(_Secret)


class BootstrapTokens:
    """Token -> user, by one look at its Secret."""

    def __init__(self, store: Store, clock: Callable[[], float] = wall) -> None:
        self._store = store
        self._clock = clock

    async def user(self, token: str) -> User | None:
        """Whose token it is; None where it is none, or good no more. The log says why."""
        found = _TOKEN.fullmatch(token)
        if found is None:
            return None
        identity, secret = found[1], found[2]
        entry = await self._store.get(f"/secrets/kube-system/bootstrap-token-{identity}")
        if entry is None:
            return None
        kept = _secret.decode(entry.value)
        try:
            data = {key: base64.b64decode(value).decode() for key, value in (kept.data or {}).items()}
        except (binascii.Error, UnicodeDecodeError):
            data = {}
        if kept.type != TYPE or not hmac.compare_digest(data.get("token-secret", "").encode(), secret.encode()):
            return None
        groups = [each for each in data.get("auth-extra-groups", "").split(",") if each]
        why = self._fault(identity, data, groups) or ("it is being deleted" if kept.metadata.deletion_timestamp else "")
        if why:
            log.info("the bootstrap token %s was refused: %s", identity, why)
            return None
        return User(f"system:bootstrap:{identity}", (GROUP, *sorted(groups), "system:authenticated"))

    def _fault(self, identity: str, data: dict[str, str], groups: list[str]) -> str:
        if data.get("token-id") != identity:
            return "its token-id is another than its name's"
        if data.get("usage-bootstrap-authentication") != "true":
            return "usage-bootstrap-authentication is not true"
        if end := data.get("expiration"):
            try:
                if parse_time(end) <= self._clock():
                    return f"it expired at {end}"
            except ValueError:
                return f"its expiration {end!r} is no time"
        wrong = [each for each in groups if not _EXTRA.fullmatch(each)]
        return f"auth-extra-groups has {wrong[0]!r}, which isn't below {GROUP}:" if wrong else ""
