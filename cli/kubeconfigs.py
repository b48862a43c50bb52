"""Kubeconfigs as documents: a context made, joined to a file, and read back with what is ours in it. Pure, but for `write`.

Beside what kubectl reads, a context may say where the gateway is, as an extension named `faaslite.dev`
(https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/#NamedExtension).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["authority_of", "context_document", "fingerprint", "gateway_of", "joined", "server_of", "write"]

_EXTENSION = "faaslite.dev"
_LISTS = ("clusters", "users", "contexts")


def context_document(
    name: str, server: str, ca: bytes | None, token: str, namespace: str, gateway: str = ""
) -> dict[str, Any]:
    """A kubeconfig of one context. `ca` is PEM, None where the system's authorities do."""
    cluster: dict[str, Any] = {"server": server}
    if ca is not None:
        cluster["certificate-authority-data"] = base64.b64encode(ca).decode()
    context: dict[str, Any] = {"cluster": name, "user": name, "namespace": namespace}
    if gateway:
        context["extensions"] = [{"name": _EXTENSION, "extension": {"gateway": gateway}}]
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": name, "context": context}],
        "current-context": name,
    }


def joined(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """`old` with the entries of `new` in place of namesakes, and its current context; all else stays."""
    found = {"apiVersion": "v1", "kind": "Config", **old, "current-context": new["current-context"]}
    for part in _LISTS:
        names = {each["name"] for each in new[part]}
        found[part] = [*(each for each in old.get(part) or () if each.get("name") not in names), *new[part]]
    return found


def gateway_of(document: Mapping[str, Any]) -> str:
    """The gateway's URL that the current context says, "" where it says none."""
    for each in document.get("contexts") or ():
        if each.get("name") == document.get("current-context"):
            for extension in (each.get("context") or {}).get("extensions") or ():
                if extension.get("name") == _EXTENSION:
                    return str((extension.get("extension") or {}).get("gateway") or "")
    return ""


def _cluster(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the current context's cluster is, {} where there is none."""
    contexts = {each.get("name"): each.get("context") or {} for each in document.get("contexts") or ()}
    clusters = {each.get("name"): each.get("cluster") or {} for each in document.get("clusters") or ()}
    found: Mapping[str, Any] = clusters.get((contexts.get(document.get("current-context")) or {}).get("cluster")) or {}
    return found


def server_of(document: Mapping[str, Any]) -> str:
    """The API's URL, "" where it says none."""
    return str(_cluster(document).get("server") or "").rstrip("/")


def authority_of(document: Mapping[str, Any]) -> str:
    """The CA (PEM) of the current context's cluster, "" where it has none in it."""
    return base64.b64decode(_cluster(document).get("certificate-authority-data") or "").decode()


def fingerprint(ca: bytes) -> str:
    """`sha256:HEX` of the public key of a CA (PEM), as kubeadm's `--discovery-token-ca-cert-hash` has it. ValueError for what is none."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = x509.load_pem_x509_certificate(ca).public_key()
    return "sha256:" + hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def write(path: Path, document: Mapping[str, Any]) -> None:
    """For its owner's eyes only, whole or not at all."""
    import yaml

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            yaml.safe_dump(dict(document), file, sort_keys=False)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
