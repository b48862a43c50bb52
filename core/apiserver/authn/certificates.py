"""Client certificates: the common name is the user, organizations are the groups.

That the certificate is of the cluster's CA and in time was checked by TLS as the connection was made; what a long connection outlives is
checked here. After https://kubernetes.io/docs/reference/access-authn-authz/authentication/#x509-client-certificates.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from core.apiserver.authn.users import User

__all__ = ["Certificates", "peer_certificate"]

_MAX_KNOWN = 4096
_AUTHENTICATED = "system:authenticated"


class _Known(NamedTuple):
    user: User | None
    start: float
    end: float


def peer_certificate(scope: dict[str, Any]) -> str:
    """The client's certificate (PEM) of an ASGI scope, "" where it showed none: the `tls` extension of ASGI."""
    extensions = scope.get("extensions")
    if not extensions:
        return ""
    chain = (extensions.get("tls") or {}).get("client_cert_chain") or ()
    return chain[0] if chain else ""


class Certificates:
    """Certificate -> user. What was read once isn't read again."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    def user(self, pem: str, now: float) -> User | None:
        """None for a certificate that is nobody's, isn't for clients, or isn't valid at `now`."""
        found = self._known.get(pem)
        if found is None:
            found = _read(pem)
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[pem] = found
        return found.user if found.start <= now <= found.end else None


def _read(pem: str) -> _Known:
    certificate = x509.load_pem_x509_certificate(pem.encode())
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    groups = [str(each.value) for each in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    user = None
    if names and names[0].value and _for_clients(certificate):
        if _AUTHENTICATED not in groups:
            groups.append(_AUTHENTICATED)
        digest = hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()
        extra = {"authentication.kubernetes.io/credential-id": (f"X509SHA256={digest}",)}
        user = User(str(names[0].value), tuple(groups), "", extra)
    return _Known(user, certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp())


def _for_clients(certificate: x509.Certificate) -> bool:
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return ExtendedKeyUsageOID.CLIENT_AUTH in usages
