"""What the cluster's signers sign: the form that a certificate request must have, and the certificate that comes of it.

Pure. After https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from core.api.nodenames import serving_name

__all__ = [
    "CLIENT", "KUBELET_CLIENT", "KUBELET_SERVING", "SIGNERS", "Authority", "common_name", "is_kubelet_client", "is_kubelet_serving", "issue", "refusal",
]  # fmt: skip

CLIENT = "kubernetes.io/kube-apiserver-client"
KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"
SIGNERS = (CLIENT, KUBELET_CLIENT, KUBELET_SERVING)
NODES = "system:nodes"
NODE_PREFIX = "system:node:"

LONGEST = timedelta(days=365)
SHORTEST = timedelta(minutes=10)
_BACKDATE = timedelta(minutes=5)
_BASE = frozenset(("digital signature", "key encipherment"))


@dataclass(frozen=True, slots=True)
class Authority:
    """The CA's certificate and key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def common_name(request: x509.CertificateSigningRequest) -> str:
    found = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def _organizations(request: x509.CertificateSigningRequest) -> list[str]:
    return [str(each.value) for each in request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]


def _alternatives(request: x509.CertificateSigningRequest) -> list[x509.GeneralName]:
    try:
        return list(request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


def refusal(signer: str, request: x509.CertificateSigningRequest, usages: Collection[str], username: str) -> str:
    """Why `signer` doesn't sign it; "" where it does. `username` is who asked."""
    usages = frozenset(usages)
    if signer == CLIENT:
        if "client auth" not in usages:
            return "usages did not contain client auth"
        if extra := usages - _BASE - {"client auth"}:
            return f"usages contained forbidden entries: {', '.join(sorted(extra))}"
        if "system:masters" in _organizations(request):
            return "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
        return "" if common_name(request) else "subject has no common name, which is the user's"
    if signer not in (KUBELET_CLIENT, KUBELET_SERVING):
        return f"{signer} is no signer of this cluster"
    if _organizations(request) != [NODES]:
        return f"subject organization is not {NODES}"
    name, sans = common_name(request), _alternatives(request)
    if not name.startswith(NODE_PREFIX) or name == NODE_PREFIX:
        return f"subject common name does not begin with {NODE_PREFIX}"
    purpose = "client auth" if signer == KUBELET_CLIENT else "server auth"
    if usages - {"key encipherment"} != {"digital signature", purpose}:
        return f"usages did not match [digital signature, key encipherment (optional), {purpose}]"
    if signer == KUBELET_CLIENT:
        return "subjectAltNames are not allowed" if sans else ""
    if any(not isinstance(each, (x509.DNSName, x509.IPAddress)) for each in sans):
        return "Email and URI subjectAltNames are not allowed"
    if not sans:
        return "at least one DNS or IP subjectAltName is required"
    return "" if username == name else f"requested by {username}, which is not the node of its subject"


def is_kubelet_client(request: x509.CertificateSigningRequest, usages: Collection[str]) -> bool:
    return not refusal(KUBELET_CLIENT, request, usages, "")


def is_kubelet_serving(request: x509.CertificateSigningRequest, usages: Collection[str], username: str) -> bool:
    """Whether a node asks for the certificate of its own agent, by the one name that is a node's to have."""
    name = common_name(request)
    wanted = [x509.DNSName(serving_name(name.removeprefix(NODE_PREFIX)))]
    return not refusal(KUBELET_SERVING, request, usages, username) and _alternatives(request) == wanted


def issue(
    authority: Authority,
    request: x509.CertificateSigningRequest,
    usages: Sequence[str],
    seconds: int | None,
    now: float,
) -> str:
    """The certificate (PEM): subject, names and key as asked, purposes by `usages`, for `seconds` or a year, never longer than the CA's."""
    start = datetime.fromtimestamp(now, UTC)
    life = LONGEST if seconds is None else max(min(timedelta(seconds=seconds), LONGEST), SHORTEST)
    ca = authority.certificate
    end = min(start + life, ca.not_valid_after_utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(request.subject)
        .issuer_name(ca.subject)
        .public_key(request.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - _BACKDATE)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    purposes = [
        oid
        for usage, oid in (
            ("client auth", ExtendedKeyUsageOID.CLIENT_AUTH),
            ("server auth", ExtendedKeyUsageOID.SERVER_AUTH),
        )
        if usage in usages
    ]
    builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    if _BASE.intersection(usages):  # one without any bit makes an invalid certificate (RFC 5280, 4.2.1.3)
        builder = builder.add_extension(_key_usage(usages), critical=True)
    if sans := _alternatives(request):
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
    made = builder.sign(authority.key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def _key_usage(usages: Sequence[str]) -> x509.KeyUsage:
    flags: dict[str, Any] = dict.fromkeys(
        (
            "content_commitment", "data_encipherment", "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
        ),
        False,
    )  # fmt: skip
    return x509.KeyUsage(
        digital_signature="digital signature" in usages, key_encipherment="key encipherment" in usages, **flags
    )
