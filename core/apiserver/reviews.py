"""The virtual kinds: questions about tokens and permissions, answered and never stored."""

from __future__ import annotations

from typing import Any

from core.api.kinds import (
    SELF_SUBJECT_ACCESS_REVIEW,
    SELF_SUBJECT_REVIEW,
    SUBJECT_ACCESS_REVIEW,
    TOKEN_REVIEW,
    Kind,
)
from core.apiserver.authn import Authenticator, User
from core.apiserver.authz import Authorizer
from core.apiserver.dispatch import RequestInfo
from core.apiserver.status import invalid, required
from core.clock import timestamp

__all__ = ["VIRTUAL", "Reviews"]

Document = dict[str, Any]

VIRTUAL = frozenset((TOKEN_REVIEW, SELF_SUBJECT_REVIEW, SUBJECT_ACCESS_REVIEW, SELF_SUBJECT_ACCESS_REVIEW))


class Reviews:
    def __init__(self, authenticator: Authenticator, authorizer: Authorizer) -> None:
        self._authenticator = authenticator
        self._authorizer = authorizer

    async def answer(self, kind: Kind, user: User, document: Document) -> Document:
        """The review with its `status`. Raises `Invalid`."""
        spec = document.get("spec") or {}
        metadata = {"creationTimestamp": timestamp(), **(document.get("metadata") or {})}
        found = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}
        if kind == SELF_SUBJECT_REVIEW:
            return {**found, "status": {"userInfo": user.document()}}
        if kind == TOKEN_REVIEW:
            return {**found, "spec": spec, "status": self._token(spec)}
        if kind == SUBJECT_ACCESS_REVIEW:
            if not spec.get("user") and not spec.get("groups"):
                causes = [required("spec.user", "at least one of user or group must be specified")]
                raise invalid(kind, "", causes)
            user = User(spec.get("user") or "", tuple(spec.get("groups") or ()), spec.get("uid") or "")
        return {**found, "spec": spec, "status": await self._access(kind, user, spec)}

    def _token(self, spec: Document) -> Document:
        user = self._authenticator.lookup(str(spec.get("token") or ""))
        if user is None:
            return {"authenticated": False, "user": {}, "error": "invalid bearer token"}
        return {"authenticated": True, "user": user.document(), "audiences": spec.get("audiences") or []}

    async def _access(self, kind: Kind, user: User, spec: Document) -> Document:
        resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
        if (resource is None) == (path is None):
            why = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
            raise invalid(kind, "", [required("spec.resourceAttributes", why)])
        if path is not None:
            info = RequestInfo(path.get("verb") or "", path.get("path") or "")
        else:
            said = resource or {}
            info = RequestInfo(
                said.get("verb") or "",
                "",
                said.get("group") or "",
                said.get("version") or "",
                said.get("resource") or "*",
                said.get("namespace") or "",
                said.get("name") or "",
                said.get("subresource") or "",
            )
        allowed = await self._authorizer.allowed(user, info)
        return {"allowed": True, "reason": allowed} if allowed else {"allowed": False}
