"""ServiceAccount: a Pod runs as an account that exists, and has what the account says of images.

The account `default`, which a controller makes with each namespace, is taken to be on its way where it isn't there yet: Kubernetes waits
for it, a second at most. Tokens are not mounted: a Pod that wants one mounts a token's Secret.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from core.api.kinds import POD, SERVICE_ACCOUNT
from core.errors import Forbidden
from core.store.base import Store

if TYPE_CHECKING:
    from core.apiserver.admission import Attributes

__all__ = ["ServiceAccounts"]

_DEFAULT = "default"


class _Account(msgspec.Struct, rename="camel"):
    image_pull_secrets: list[dict[str, Any]] = []


_decoder = msgspec.json.Decoder(_Account)


class ServiceAccounts:
    verbs = ("create",)
    kinds = frozenset((POD.resource,))

    def __init__(self, store: Store) -> None:
        self._store = store

    async def admit(self, attributes: Attributes) -> None:
        info, document = attributes.info, attributes.document
        if document is None or info.subresource:
            return
        spec = document.get("spec") or {}
        name = spec.get("serviceAccountName") or spec.get("serviceAccount") or _DEFAULT
        entry = await self._store.get(f"/{SERVICE_ACCOUNT.resource}/{info.namespace}/{name}")
        if entry is None:
            if name != _DEFAULT:
                raise _refusal(document, info.namespace, name)
        elif b'"imagePullSecrets"' in entry.value and not spec.get("imagePullSecrets"):
            secrets = _decoder.decode(entry.value).image_pull_secrets
            if secrets:
                spec["imagePullSecrets"] = secrets


def _refusal(document: dict[str, Any], namespace: str, account: str) -> Forbidden:
    metadata = document.get("metadata") or {}
    name = metadata.get("name") or metadata.get("generateName") or ""
    return Forbidden(
        f'pods "{name}" is forbidden: error looking up service account {namespace}/{account}: serviceaccount "{account}" not found',
        {"name": name, "kind": POD.plural},
    )
