"""Rules of roles, bindings and certificate requests: their form. What they permit is for `core.apiserver.authz`."""

from __future__ import annotations

import base64
import binascii
from types import MappingProxyType

from cryptography import x509

from core.apiserver.registry.names import path_segment
from core.apiserver.registry.pods import text
from core.apiserver.registry.strategy import Cause, Document, Strategy
from core.apiserver.status import GoValue, forbidden, invalid_value, not_supported, required

__all__ = ["BindingStrategy", "CertificateRequestStrategy", "RoleStrategy"]

_GROUP = "rbac.authorization.k8s.io"


class RoleStrategy(Strategy):
    """Of Roles and ClusterRoles."""

    made_by_update = True

    def check_name(self, name: str) -> str:
        return path_segment(name)

    def validate(self, document: Document) -> list[Cause]:
        found = []
        for index, rule in enumerate(document.get("rules") or ()):
            found += self._rule(rule, f"rules[{index}]")
        return found

    def _rule(self, rule: Document, at: str) -> list[Cause]:
        found = []
        if not rule.get("verbs"):
            found.append(required(f"{at}.verbs", "verbs must contain at least one value"))
        if paths := rule.get("nonResourceURLs"):
            if self.kind.namespaced:
                why = "namespaced rules cannot apply to non-resource URLs"
                found.append(invalid_value(f"{at}.nonResourceURLs", paths, why))
            if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
                why = "rules cannot apply to both regular resources and non-resource URLs"
                found.append(invalid_value(f"{at}.nonResourceURLs", paths, why))
            return found
        if not rule.get("apiGroups"):
            found.append(required(f"{at}.apiGroups", "resource rules must supply at least one api group"))
        if not rule.get("resources"):
            found.append(required(f"{at}.resources", "resource rules must supply at least one resource"))
        return found


class BindingStrategy(Strategy):
    """Of RoleBindings and ClusterRoleBindings."""

    made_by_update = True

    def check_name(self, name: str) -> str:
        return path_segment(name)

    def complete(self, document: Document) -> None:
        role = document.setdefault("roleRef", {})
        role["apiGroup"] = role.get("apiGroup") or _GROUP
        for each in document.get("subjects") or ():
            if each.get("kind") in ("User", "Group") and not each.get("apiGroup"):
                each["apiGroup"] = _GROUP

    def validate(self, document: Document) -> list[Cause]:
        role, found = document["roleRef"], []
        kinds = ("Role", "ClusterRole") if self.kind.namespaced else ("ClusterRole",)
        if role["apiGroup"] != _GROUP:
            found.append(not_supported("roleRef.apiGroup", role["apiGroup"], (_GROUP,)))
        if role.get("kind") not in kinds:
            found.append(not_supported("roleRef.kind", role.get("kind") or "", kinds))
        if not role.get("name"):
            found.append(required("roleRef.name"))
        elif why := path_segment(role["name"]):
            found.append(invalid_value("roleRef.name", role["name"], why))
        for index, subject in enumerate(document.get("subjects") or ()):
            found += self._subject(subject, f"subjects[{index}]")
        return found

    def _subject(self, subject: Document, at: str) -> list[Cause]:
        found, kind = [], subject.get("kind") or ""
        if not subject.get("name"):
            found.append(required(f"{at}.name"))
        if kind == "ServiceAccount":
            if subject.get("apiGroup"):
                found.append(not_supported(f"{at}.apiGroup", subject["apiGroup"], ("",)))
            if not subject.get("namespace"):
                found.append(required(f"{at}.namespace"))
        elif kind in ("User", "Group"):
            if subject["apiGroup"] != _GROUP:
                found.append(not_supported(f"{at}.apiGroup", subject["apiGroup"], (_GROUP,)))
        else:
            found.append(not_supported(f"{at}.kind", kind, ("Group", "ServiceAccount", "User")))
        return found

    def validate_update(self, new: Document, old: Document) -> list[Cause]:
        role = new["roleRef"]
        if role == old.get("roleRef"):
            return []
        shown = f'rbac.RoleRef{{APIGroup:"{role["apiGroup"]}", Kind:"{role.get("kind") or ""}", Name:"{role.get("name") or ""}"}}'
        return [invalid_value("roleRef", GoValue(shown), "cannot change roleRef")]


_APPROVAL = ("Approved", "Denied")
_SHORTEST = 600
_USAGES = frozenset((
    "signing", "digital signature", "content commitment", "key encipherment", "key agreement", "data encipherment", "cert sign",
    "crl sign", "encipher only", "decipher only", "any", "server auth", "client auth", "code signing", "email protection", "s/mime",
    "ipsec end system", "ipsec tunnel", "ipsec user", "timestamping", "ocsp signing", "microsoft sgc", "netscape sgc",
))  # fmt: skip


class CertificateRequestStrategy(Strategy):
    """Who asks is set by admission; the spec never changes; approvals come by the subresource `approval` alone."""

    fields = MappingProxyType({"spec.signerName": text("spec", "signerName")})

    def prepare_create(self, document: Document, now: float) -> None:
        document["status"] = {}

    def prepare_update(self, new: Document, old: Document) -> None:
        super().prepare_update(new, old)
        new["spec"] = old.get("spec") or {}

    parts = ("approval",)

    def prepare_part(self, part: str, new: Document, old: Document) -> Document:
        """Conditions alone, and of them the verdict."""
        conditions = (new.get("status") or {}).get("conditions") or []
        status = {**(old.get("status") or {}), "conditions": conditions}
        return {
            **old,
            "metadata": {
                **old["metadata"],
                **{key: new["metadata"][key] for key in ("labels", "annotations") if key in new["metadata"]},
            },
            "status": status,
        }

    def validate_part(self, part: str, new: Document, old: Document) -> list[Cause]:
        return self.validate_status(new, old)

    def prepare_status(self, new: Document, old: Document) -> Document:
        found = super().prepare_status(new, old)
        kept = [each for each in (old.get("status") or {}).get("conditions") or () if each.get("type") in _APPROVAL]
        mine = [
            each for each in (found.get("status") or {}).get("conditions") or () if each.get("type") not in _APPROVAL
        ]
        if kept or mine:
            found.setdefault("status", {})["conditions"] = kept + mine
        return found

    def validate(self, document: Document) -> list[Cause]:
        spec, found = document.get("spec") or {}, []
        try:
            asked = x509.load_pem_x509_csr(base64.b64decode(spec.get("request") or ""))
            if not asked.is_signature_valid:
                raise ValueError("the signature doesn't hold")
        except (ValueError, binascii.Error, TypeError):
            why = "PEM block type must be CERTIFICATE REQUEST"
            found.append(invalid_value("spec.request", GoValue("[]byte{...}"), why))
        if not spec.get("usages"):
            found.append(required("spec.usages"))
        for index, usage in enumerate(spec.get("usages") or ()):
            if usage not in _USAGES:
                found.append(not_supported(f"spec.usages[{index}]", usage, sorted(_USAGES)))
        seconds = spec.get("expirationSeconds")
        if seconds is not None and seconds < _SHORTEST:
            why = "may not specify a duration less than 600 seconds (10 minutes)"
            found.append(invalid_value("spec.expirationSeconds", seconds, why))
        signer = spec.get("signerName") or ""
        if not signer:
            found.append(required("spec.signerName"))
        elif "/" not in signer:
            why = 'must be a fully qualified domain and path of the form "example.com/signer-name"'
            found.append(invalid_value("spec.signerName", signer, why))
        return found

    def validate_status(self, new: Document, old: Document) -> list[Cause]:
        found, types = [], set()
        kept = (old.get("status") or {}).get("certificate")
        given = (new.get("status") or {}).get("certificate")
        if kept and given != kept:
            found.append(invalid_value("status.certificate", GoValue("[]byte{...}"), "field is immutable once set"))
        elif given and not _is_certificate(given):
            why = "must be a valid PEM certificate"
            found.append(invalid_value("status.certificate", GoValue("[]byte{...}"), why))
        had = {each.get("type") for each in (old.get("status") or {}).get("conditions") or ()}
        gone = had & {*_APPROVAL, "Failed"} - {
            each.get("type") for each in (new.get("status") or {}).get("conditions") or ()
        }
        found += [forbidden("status.conditions", f"{each} condition may not be removed") for each in sorted(gone)]
        for index, each in enumerate((new.get("status") or {}).get("conditions") or ()):
            at = f"status.conditions[{index}]"
            if not each.get("type"):
                found.append(required(f"{at}.type"))
            if each.get("type") in _APPROVAL and each.get("status") != "True":
                found.append(not_supported(f"{at}.status", each.get("status") or "", ("True",)))
            types.add(each.get("type"))
        if set(_APPROVAL) <= types:
            found.append(
                invalid_value("status.conditions", "", "Approved and Denied conditions are mutually exclusive")
            )
        return found


def _is_certificate(encoded: str) -> bool:
    try:
        x509.load_pem_x509_certificates(base64.b64decode(encoded))
    except (ValueError, TypeError, binascii.Error):
        return False
    return True
