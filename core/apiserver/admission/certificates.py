"""Certificate requests: who asks is told by the server, and whoever approves or signs must be allowed to for that signer.

After Kubernetes' plugins CertificateApproval, CertificateSigning, CertificateSubjectRestriction and the part of NodeRestriction about them
(https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#authorization).
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from core.api.kinds import CERTIFICATE_SIGNING_REQUEST, Kind
from core.apiserver.authn import User
from core.apiserver.authz.node import node_name
from core.apiserver.authz.rbac import Index
from core.apiserver.dispatch import RequestInfo
from core.errors import Forbidden

if TYPE_CHECKING:
    from core.apiserver.admission import Attributes

__all__ = ["CertificateRequests", "check_certificate_write"]

Document = dict[str, Any]

_KIND = CERTIFICATE_SIGNING_REQUEST
_CLIENT = "kubernetes.io/kube-apiserver-client"
_OF_NODES = ("kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving")


class CertificateRequests:
    verbs = ("create",)
    kinds = frozenset((_KIND.resource,))

    async def admit(self, attributes: Attributes) -> None:
        document, user = attributes.document, attributes.user
        if attributes.kind.resource != _KIND.resource or document is None:
            return
        spec = document.setdefault("spec", {})
        for field, value in (
            ("username", user.name), ("uid", user.uid), ("groups", list(user.groups)),
            ("extra", {key: list(values) for key, values in user.extra.items()}),
        ):  # fmt: skip
            spec.pop(field, None)
            if value:
                spec[field] = value
        subject = _subject(spec)
        signer, name = spec.get("signerName"), (document.get("metadata") or {}).get("name") or ""
        if subject is None:
            return  # the strategy says what is wrong with it
        if signer == _CLIENT and "system:masters" in _values(subject, NameOID.ORGANIZATION_NAME):
            raise _refusal(_KIND, name, f"use of {_CLIENT} signer with system:masters group is not allowed")
        node = node_name(user)
        if node and (signer not in _OF_NODES or _values(subject, NameOID.COMMON_NAME) != [user.name]):
            raise _refusal(_KIND, name, f"can only create a node CSR with CN={user.name}")


def check_certificate_write(
    index: Index, user: User, kind: Kind, subresource: str, new: Document, old: Document | None
) -> None:
    """`new` is what an update would store. Raises `Forbidden`."""
    if old is None:
        return
    was, now = old.get("status") or {}, new.get("status") or {}
    signer = (old.get("spec") or {}).get("signerName") or ""
    if subresource == "approval" and was.get("conditions") != now.get("conditions"):
        verb, what = "approve", "approve"
    elif subresource == "status" and was != now:
        verb, what = "sign", "sign"
    else:
        return
    if not any(index.allows(user, _permission(verb, each)) for each in (signer, f"{signer.partition('/')[0]}/*")):
        raise _refusal(
            kind, new["metadata"]["name"], f'user not permitted to {what} requests with signerName "{signer}"'
        )


def _permission(verb: str, signer: str) -> RequestInfo:
    return RequestInfo(verb, "", _KIND.group, _KIND.version, "signers", "", signer)


def _subject(spec: Document) -> x509.Name | None:
    try:
        return x509.load_pem_x509_csr(base64.b64decode(spec.get("request") or "")).subject
    except (ValueError, TypeError, binascii.Error):
        return None


def _values(subject: x509.Name, oid: x509.ObjectIdentifier) -> list[str]:
    return [str(each.value) for each in subject.get_attributes_for_oid(oid)]


def _refusal(kind: Kind, name: str, why: str) -> Forbidden:
    return Forbidden(
        f'{kind.resource} "{name}" is forbidden: {why}', {"name": name, "group": kind.group, "kind": kind.plural}
    )
