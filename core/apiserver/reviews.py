"""The virtual kinds: questions about tokens and permissions, answered and never stored."""

from __future__ import annotations

from typing import Any

from core.api.kinds import (
    LOCAL_SUBJECT_ACCESS_REVIEW,
    SELF_SUBJECT_ACCESS_REVIEW,
    SELF_SUBJECT_REVIEW,
    SELF_SUBJECT_RULES_REVIEW,
    SUBJECT_ACCESS_REVIEW,
    TOKEN_REVIEW,
    Kind,
)
from core.apiserver.authn import MASTERS, Authenticator, User
from core.apiserver.authz import Authorizer
from core.apiserver.authz.node import node_name
from core.apiserver.dispatch import RequestInfo
from core.apiserver.status import invalid, required
from core.clock import timestamp
from core.errors import BadRequest

__all__ = ["VIRTUAL", "Reviews"]

Document = dict[str, Any]

VIRTUAL = frozenset((
    TOKEN_REVIEW, SELF_SUBJECT_REVIEW, SUBJECT_ACCESS_REVIEW, SELF_SUBJECT_ACCESS_REVIEW, LOCAL_SUBJECT_ACCESS_REVIEW,
    SELF_SUBJECT_RULES_REVIEW,
))  # fmt: skip


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
            return {**found, "spec": spec, "status": await self._token(spec)}
        if kind == SELF_SUBJECT_RULES_REVIEW:
            if not spec.get("namespace"):
                raise BadRequest("no namespace on request")
            return {**found, "spec": {}, "status": self._rules(user, spec["namespace"])}
        if kind in (SUBJECT_ACCESS_REVIEW, LOCAL_SUBJECT_ACCESS_REVIEW):
            if not spec.get("user") and not spec.get("groups"):
                causes = [required("spec.user", "at least one of user or group must be specified")]
                raise invalid(kind, "", causes)
            user = User(spec.get("user") or "", tuple(spec.get("groups") or ()), spec.get("uid") or "")
        return {**found, "spec": spec, "status": await self._access(kind, user, spec)}

    async def _token(self, spec: Document) -> Document:
        found = await self._authenticator.review(str(spec.get("token") or ""), spec.get("audiences") or [])
        if found is None:
            return {"authenticated": False, "user": {}, "error": "[invalid bearer token, token lookup failed]"}
        user, audiences = found
        return {"authenticated": True, "user": user.document(), "audiences": audiences}

    def _rules(self, user: User, namespace: str) -> Document:
        """All that the roles of the user say. What a node may write depends on the object, so it can't be listed."""
        resources: list[Document] = []
        paths: list[Document] = []
        if MASTERS in user.groups:
            resources.append({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]})
            paths.append({"verbs": ["*"], "nonResourceURLs": ["*"]})
        for rule in self._authorizer.index.rules(user, namespace):
            if rule.paths:
                paths.append({"verbs": sorted(rule.verbs), "nonResourceURLs": list(rule.paths)})
            else:
                found = {
                    "verbs": rule.verbs,
                    "apiGroups": rule.groups,
                    "resources": rule.resources,
                    "resourceNames": rule.names,
                }
                resources.append({key: sorted(each) for key, each in found.items() if each})
        return {"resourceRules": resources, "nonResourceRules": paths, "incomplete": bool(node_name(user))}

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
                fields=_fields(said.get("fieldSelector") or {}),
            )
        found = await self._authorizer.decide(user, info)
        return {"allowed": found.allowed, **({"reason": found.reason} if found.reason else {})}


def _fields(selector: Document) -> str:
    """The field selector of a review, as it stands in a query; requirements of other kinds than equality limit nothing that is known."""
    if selector.get("rawSelector"):
        return str(selector["rawSelector"])
    return ",".join(
        f"{each.get('key')}={each['values'][0]}"
        for each in selector.get("requirements") or ()
        if each.get("operator") == "In" and len(each.get("values") or ()) == 1
    )
