"""Tokens of ServiceAccounts: JSON Web Tokens (RFC 7519) signed with ES256, with audiences, an end, and the object they are bound to.

A token is worth nothing once its ServiceAccount, or what it is bound to, is gone or another of the same name. Claims are those
that Kubernetes gives (https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/).
"""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from core.apiserver.authn.users import User
from core.clock import wall
from core.store.base import Store

__all__ = ["AUDIENCE", "BOUND_KINDS", "ServiceAccountTokens", "new_key"]

AUDIENCE = "https://kubernetes.default.svc"
"""The API server's own audience, and the issuer of all tokens."""
BOUND_KINDS = {"Pod": "pods", "Secret": "secrets", "Node": "nodes"}
"""What a token may be bound to -> where it lies in the store."""
_HALF = 32
_MAX_CACHED = 4096
_SKEW = 10.0
_PREFIX = "system:serviceaccount"
_encode = msgspec.json.encode

Claims = dict[str, Any]


class _Metadata(msgspec.Struct, rename="camel"):
    uid: str = ""
    deletion_timestamp: str | None = None


class _Object(msgspec.Struct):
    metadata: _Metadata


_object = msgspec.json.Decoder(_Object)


def new_key() -> bytes:
    """A signing key (PEM)."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _data(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class ServiceAccountTokens:
    """Issues and checks tokens. `key` is PEM; `clock` gives seconds since the epoch."""

    def __init__(self, store: Store, key: bytes, clock: Callable[[], float] = wall) -> None:
        try:
            loaded = serialization.load_pem_private_key(key, None)
        except (ValueError, TypeError) as error:
            raise ValueError(f"the signing key of ServiceAccounts can't be read: {error}") from error
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise ValueError("the signing key of ServiceAccounts must be an EC key")
        self._key, self._public = loaded, loaded.public_key()
        self._store = store
        self._clock = clock
        self._header = _text(_encode({"alg": "ES256", "kid": self._key_id(), "typ": "JWT"}))
        self._checked: dict[str, Claims] = {}

    def _key_id(self) -> str:
        digest = hashes.Hash(hashes.SHA256())
        digest.update(
            self._public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
        return _text(digest.finalize())

    def public_keys(self) -> list[dict[str, str]]:
        """What tokens are verified with, as JSON Web Keys (RFC 7517)."""
        numbers = self._public.public_numbers()
        point = {"x": _text(numbers.x.to_bytes(_HALF, "big")), "y": _text(numbers.y.to_bytes(_HALF, "big"))}
        return [{"use": "sig", "kty": "EC", "kid": self._key_id(), "alg": "ES256", "crv": "P-256", **point}]

    def issue(
        self, namespace: str, name: str, uid: str, seconds: int, audiences: Sequence[str], bound: Claims | None = None
    ) -> tuple[str, float]:
        """A token and its end (seconds since the epoch). `bound` is `{"pod": {"name", "uid"}}`, or of another kind."""
        now = int(self._clock())
        about = {"namespace": namespace, "serviceaccount": {"name": name, "uid": uid}, **(bound or {})}
        claims = {
            "aud": list(audiences), "exp": now + seconds, "iat": now, "iss": AUDIENCE, "jti": str(uuid.uuid4()),
            "kubernetes.io": about, "nbf": now, "sub": f"{_PREFIX}:{namespace}:{name}",
        }  # fmt: skip
        signed = f"{self._header}.{_text(_encode(claims))}"
        first, second = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_text(first.to_bytes(_HALF, 'big') + second.to_bytes(_HALF, 'big'))}", float(now + seconds)

    async def user(self, token: str, audiences: Sequence[str] = (AUDIENCE,)) -> tuple[User, list[str]] | None:
        """Whose token it is, and for which of `audiences`; None where it is none of ours or good no more."""
        claims = self._verified(token)
        if claims is None:
            return None
        now = self._clock()
        shared = [each for each in audiences if each in claims["aud"]]
        if not shared or now > claims["exp"] or now < max(claims["nbf"], claims["iat"]) - _SKEW:
            return None
        about = claims["kubernetes.io"]
        namespace, account = about["namespace"], about["serviceaccount"]
        if not await self._stands(f"/serviceaccounts/{namespace}/{account['name']}", account["uid"]):
            return None
        extra: dict[str, tuple[str, ...]] = {
            "authentication.kubernetes.io/credential-id": (f"JTI={claims['jti']}",),
        }  # fmt: skip
        for kind, plural in BOUND_KINDS.items():
            if (bound := about.get(kind.lower())) is not None:
                place = f"/{plural}/{bound['name']}" if kind == "Node" else f"/{plural}/{namespace}/{bound['name']}"
                if not await self._stands(place, bound["uid"]):
                    return None
                extra[f"authentication.kubernetes.io/{kind.lower()}-name"] = (bound["name"],)
                extra[f"authentication.kubernetes.io/{kind.lower()}-uid"] = (bound["uid"],)
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
        return User(claims["sub"], groups, account["uid"], extra), shared

    async def _stands(self, key: str, uid: str) -> bool:
        entry = await self._store.get(key)
        if entry is None:
            return False
        metadata = _object.decode(entry.value).metadata
        return metadata.uid == uid

    def _verified(self, token: str) -> Claims | None:
        """The claims of a token with our signature. What was checked once isn't checked again."""
        found = self._checked.get(token)
        if found is not None:
            return found
        header, _, rest = token.partition(".")
        body, _, signature = rest.partition(".")
        if header != self._header:
            return None
        try:
            raw = _data(signature)
            der = encode_dss_signature(int.from_bytes(raw[:_HALF], "big"), int.from_bytes(raw[_HALF:], "big"))
            self._public.verify(der, f"{header}.{body}".encode(), ec.ECDSA(hashes.SHA256()))
            claims: Claims = msgspec.json.decode(_data(body))
        except (InvalidSignature, ValueError, binascii.Error, msgspec.MsgspecError):
            return None
        if len(self._checked) >= _MAX_CACHED:
            del self._checked[next(iter(self._checked))]
        self._checked[token] = claims
        return claims
