"""The kubeconfig that `faas up` writes: read by kubectl, by the CLI and by the components themselves."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import yaml

from faaslite.launch.pki import write_private

__all__ = ["render", "write"]

NAME = "faaslite"


def render(server: str, ca: bytes, token: str, namespace: str = "default", gateway: str = "") -> str:
    """A kubeconfig with one cluster, one user and one context, all named `faaslite`; the context says where the gateway is."""
    context: dict[str, Any] = {"cluster": NAME, "user": NAME, "namespace": namespace}
    if gateway:
        context["extensions"] = [{"name": "faaslite.dev", "extension": {"gateway": gateway}}]
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": NAME, "cluster": {"server": server, "certificate-authority-data": base64.b64encode(ca).decode()}}
        ],
        "users": [{"name": NAME, "user": {"token": token}}],
        "contexts": [{"name": NAME, "context": context}],
        "current-context": NAME,
    }
    return yaml.safe_dump(document, sort_keys=False)


def write(path: Path, server: str, ca: bytes, token: str, gateway: str = "") -> None:
    """Write it for its owner's eyes only, in one step."""
    write_private(path, render(server, ca, token, gateway=gateway).encode())
