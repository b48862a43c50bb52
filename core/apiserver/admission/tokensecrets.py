"""Secrets that are filled with a token of a ServiceAccount: who makes one must be allowed to make tokens of that account.

Otherwise whoever may write Secrets of a namespace could be any of its accounts, also one that may do more than he may.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.api.kinds import SECRET
from core.apiserver.authn import MASTERS
from core.apiserver.authz.rbac import Index
from core.apiserver.dispatch import RequestInfo
from core.errors import Forbidden

if TYPE_CHECKING:
    from core.apiserver.admission import Attributes

__all__ = ["TokenSecrets"]

TYPE = "kubernetes.io/service-account-token"
ACCOUNT = "kubernetes.io/service-account.name"


class TokenSecrets:
    verbs = ("create",)
    kinds = frozenset((SECRET.resource,))

    def __init__(self, index: Index) -> None:
        self._index = index

    async def admit(self, attributes: Attributes) -> None:
        info, document, user = attributes.info, attributes.document, attributes.user
        if document is None or attributes.kind.resource != SECRET.resource or document.get("type") != TYPE:
            return
        metadata = document.get("metadata") or {}
        account = str((metadata.get("annotations") or {}).get(ACCOUNT, ""))
        asked = RequestInfo("create", "", "", "v1", "serviceaccounts", info.namespace, account, "token")
        if MASTERS in user.groups or self._index.allows(user, asked):
            return
        raise Forbidden(
            f'secrets "{metadata.get("name") or ""}" is forbidden: it would hold a token of the service account "{account}", and User '
            f'"{user.name}" cannot create resource "serviceaccounts/token" in the namespace "{info.namespace}"',
            {"name": metadata.get("name") or "", "kind": SECRET.plural},
        )
