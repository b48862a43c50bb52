"""Questions to webhooks and what their answers mean: `admission.k8s.io/v1 AdmissionReview`. Pure.

https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#request
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from core.api.kinds import Kind
from core.apiserver.authn import User
from core.errors import ApiError, api_error

__all__ = ["BadAnswer", "Verdict", "denial", "question", "verdict"]

Document = dict[str, Any]
_OPTIONS = {"CREATE": "CreateOptions", "UPDATE": "UpdateOptions", "DELETE": "DeleteOptions"}


class BadAnswer(Exception):
    """What came back is no answer to what was asked."""


class Verdict(NamedTuple):
    """`patch` are JSON-patch operations."""

    allowed: bool
    status: Document
    patch: list[Any] | None = None
    warnings: tuple[str, ...] = ()
    annotations: Mapping[str, str] = {}


def question(
    uid: str,
    kind: Kind,
    subresource: str,
    operation: str,
    user: User,
    *,
    asked: Kind,
    namespace: str,
    name: str,
    new: Document | None,
    old: Document | None,
    dry_run: bool,
    options: Document,
) -> Document:
    """`kind` as the webhook sees it; `asked` is the one that the client spoke of."""
    resource = {"group": kind.group, "version": kind.version, "resource": kind.plural}
    request: Document = {
        "uid": uid,
        "kind": _kind(kind, new or old),
        "resource": resource,
        "requestKind": _kind(asked, new or old if kind.version == asked.version else None),
        "requestResource": {"group": asked.group, "version": asked.version, "resource": asked.plural},
        "operation": operation,
        "userInfo": user.document(),
        "object": new,
        "oldObject": old,
        "dryRun": dry_run,
        "options": {"kind": _OPTIONS[operation], "apiVersion": "meta.k8s.io/v1", **options}
        if operation in _OPTIONS
        else None,
    }
    if name:
        request["name"] = name
    if namespace:
        request["namespace"] = namespace
    if subresource:
        request["subResource"] = request["requestSubResource"] = subresource
    return {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}


def _kind(kind: Kind, document: Document | None) -> Document:
    """Of the object that is sent, which for some subresources isn't the resource's."""
    group, version, name = kind.group, kind.version, kind.kind
    if document is not None and document.get("kind") not in (None, name):
        group, _, version = (document.get("apiVersion") or "").rpartition("/")
        name = document["kind"]
    return {"group": group, "version": version, "kind": name}


def verdict(body: bytes, uid: str) -> Verdict:
    """Raises `BadAnswer`."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError) as error:
        raise BadAnswer(f"received invalid webhook response: {error}") from None
    if type(document) is not dict or document.get("kind") != "AdmissionReview":
        found = document.get("kind") if type(document) is dict else type(document).__name__
        raise BadAnswer(
            f"received invalid webhook response: expected webhook response of kind AdmissionReview, got {found}"
        )
    if document.get("apiVersion") != "admission.k8s.io/v1":
        raise BadAnswer(
            "received invalid webhook response: expected webhook response of admission.k8s.io/v1, "
            f"Kind=AdmissionReview, got {document.get('apiVersion')}"
        )
    answer = document.get("response")
    if type(answer) is not dict:
        raise BadAnswer("received invalid webhook response: webhook response was absent")
    if answer.get("uid") != uid:
        raise BadAnswer(
            f'received invalid webhook response: expected response.uid="{uid}", got "{answer.get("uid") or ""}"'
        )
    status, warnings, annotations = answer.get("status"), answer.get("warnings"), answer.get("auditAnnotations")
    return Verdict(
        answer.get("allowed") is True,
        status if type(status) is dict else {},
        _patch(answer),
        tuple(each for each in warnings if type(each) is str) if type(warnings) is list else (),
        {key: str(each) for key, each in annotations.items()} if type(annotations) is dict else {},
    )


def _patch(answer: Document) -> list[Any] | None:
    text, kind = answer.get("patch"), answer.get("patchType")
    if not text:
        if kind:
            raise BadAnswer(
                "received invalid webhook response: webhook returned response.patchType but not response.patch"
            )
        return None
    if kind != "JSONPatch":
        raise BadAnswer(
            "received invalid webhook response: webhook returned response.patch but not response.patchType=JSONPatch"
            if not kind
            else f'received invalid webhook response: webhook returned invalid response.patchType of "{kind}"'
        )
    try:
        found = msgspec.json.decode(base64.b64decode(text, validate=True))
    except (binascii.Error, msgspec.DecodeError, ValueError, TypeError) as error:
        raise BadAnswer(f"received invalid webhook response: response.patch: {error}") from None
    if type(found) is not list:
        raise BadAnswer("received invalid webhook response: response.patch is no list of operations")
    return found


def denial(hook: str, status: Document) -> ApiError:
    """What the client is told."""
    text, reason, code = status.get("message"), status.get("reason"), status.get("code")
    denied = f'admission webhook "{hook}" denied the request'
    text = f"{denied}: {text or reason}" if text or reason else f"{denied} without explanation"
    code = code if type(code) is int and 400 <= code < 600 else 400
    details = status.get("details")
    error = api_error(
        {"message": text, "reason": reason or "", "details": details if type(details) is dict else {}}, code
    )
    error.status_reason = str(reason or "")
    return error
