"""Reads a kubeconfig: which server to speak to, what to trust, how to say who we are.

Fields of https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/. Relative paths are relative to the file.
Credential plugins (`exec`, `auth-provider`) are refused with a clear error rather than run.
"""

from __future__ import annotations

import base64
import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from core.errors import FaasliteError

__all__ = ["ClusterAccess", "KubeconfigError", "client_context", "load", "read_kubeconfig"]

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's where it is built in, which reads ten times as fast."""


class KubeconfigError(FaasliteError):
    """The kubeconfig is missing, malformed, or asks for something that this client doesn't do."""


@dataclass(frozen=True, slots=True)
class ClusterAccess:
    """What one context of a kubeconfig says. `ssl` is None for a server without TLS."""

    server: str
    namespace: str
    token: str
    ssl: ssl.SSLContext | None
    server_name: str


def client_context(
    *, ca: bytes | None = None, cert: bytes | None = None, key: bytes | None = None, verify: bool = True
) -> ssl.SSLContext:
    """A TLS client context from PEM bytes; without `ca` the system's authorities are trusted."""
    context = ssl.create_default_context(cadata=ca.decode() if ca is not None else None)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if cert is not None:
        _load_chain(context, cert, key if key is not None else cert)
    return context


def _load_chain(context: ssl.SSLContext, cert: bytes, key: bytes) -> None:
    """The ssl module loads keys from files only; an anonymous one keeps the key off the disk."""
    descriptor = os.memfd_create("client-certificate", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(cert + b"\n" + key)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")


def read_kubeconfig(path: str | os.PathLike[str], context: str | None = None) -> ClusterAccess:
    """The access that `context` (None: the current one) of the file describes. Raises `KubeconfigError`."""
    file = Path(path)
    config = load(file)
    try:
        return _access(config, file, context)
    except (KeyError, TypeError, AttributeError, ValueError, OSError, ssl.SSLError) as error:
        raise KubeconfigError(f"the kubeconfig {file} is malformed: {type(error).__name__}: {error}") from error


def load(file: Path) -> dict[str, Any]:
    """The document in the file. Raises `KubeconfigError`."""
    try:
        config = yaml.load(file.read_bytes(), Loader=_Loader)  # noqa: S506 - one of the safe ones
    except (OSError, yaml.YAMLError) as error:
        raise KubeconfigError(f"can't read the kubeconfig {file}: {error}") from error
    if not isinstance(config, dict):
        raise KubeconfigError(f"{file} is not a kubeconfig")
    return config


def _access(config: dict[str, Any], file: Path, wanted: str | None) -> ClusterAccess:
    name = wanted or config.get("current-context")
    if not name:
        raise KubeconfigError(f"{file} has no current-context")
    context = _named(config, file, "context", name)
    cluster = _named(config, file, "cluster", context["cluster"])
    user = _named(config, file, "user", context["user"]) if context.get("user") else {}
    for plugin in ("exec", "auth-provider"):
        if plugin in user:
            raise KubeconfigError(
                f"{file}: user {context['user']!r} needs a credential plugin ({plugin}), not supported"
            )
    token = str(user.get("token") or "")
    if not token and user.get("tokenFile"):
        token = (file.parent / user["tokenFile"]).read_text().strip()
    server = str(cluster["server"])
    secure = None
    if server.startswith("https:"):
        certificate = _data_or_file(user, "client-certificate", file)
        if certificate is not None:
            _check_time(certificate, file)
        secure = client_context(
            ca=_data_or_file(cluster, "certificate-authority", file),
            cert=certificate,
            key=_data_or_file(user, "client-key", file),
            verify=not cluster.get("insecure-skip-tls-verify"),
        )
    return ClusterAccess(
        server=server.rstrip("/"),
        namespace=str(context.get("namespace") or "default"),
        token=token,
        ssl=secure,
        server_name=str(cluster.get("tls-server-name") or ""),
    )


def _check_time(certificate: bytes, file: Path) -> None:
    """A server ends the connection on a certificate that isn't valid now, without a word that reaches anybody."""
    from cryptography import x509

    found = x509.load_pem_x509_certificate(certificate)
    now = datetime.now(UTC)
    if found.not_valid_after_utc <= now:
        raise KubeconfigError(
            f"the client certificate of {file} expired on {found.not_valid_after_utc:%Y-%m-%d}: get a new one by a CertificateSigningRequest, or use a token"
        )
    if found.not_valid_before_utc > now:
        raise KubeconfigError(
            f"the client certificate of {file} is valid from {found.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on, which is still to come: is this machine's clock right?"
        )


def _named(config: dict[str, Any], file: Path, what: str, name: str) -> dict[str, Any]:
    for each in config.get(f"{what}s") or ():
        if each.get("name") == name:
            found: dict[str, Any] = each[what] or {}
            return found
    raise KubeconfigError(f"{file} has no {what} named {name!r}")


def _data_or_file(section: dict[str, Any], field: str, file: Path) -> bytes | None:
    if data := section.get(f"{field}-data"):
        return base64.b64decode(data, validate=True)
    if named := section.get(field):
        return Path(file.parent, str(named)).read_bytes()
    return None
