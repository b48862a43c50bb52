"""Which certificate requests a signer signs, a row each, and what the certificate says."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from core.controllers.signing import (
    CLIENT,
    KUBELET_CLIENT,
    KUBELET_SERVING,
    Authority,
    is_kubelet_serving,
    issue,
    refusal,
)

KEY = ec.generate_private_key(ec.SECP256R1())
NOW = datetime(2026, 3, 1, tzinfo=UTC)
NODE = "system:node:n1"
BOTH = ["digital signature", "key encipherment"]


def request(common_name, *organizations, sans=()):
    names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, each) for each in organizations]
    if common_name:
        names.append(x509.NameAttribute(NameOID.COMMON_NAME, common_name))
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names))
    if sans:
        builder = builder.add_extension(x509.SubjectAlternativeName(list(sans)), critical=False)
    return builder.sign(KEY, hashes.SHA256())


def authority(days=3650):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = (
        builder.serial_number(1).not_valid_before(NOW - timedelta(days=1)).not_valid_after(NOW + timedelta(days=days))
    )
    return Authority(builder.sign(key, hashes.SHA256()), key)


DNS, IP, MAIL = x509.DNSName("n1"), x509.IPAddress(ip_address("10.0.0.1")), x509.RFC822Name("a@b")
ROWS = [
    (CLIENT, request("ann", "dev"), [*BOTH, "client auth"], "ann", ""),
    (CLIENT, request("ann"), ["client auth"], "ben", ""),
    (CLIENT, request("ann"), BOTH, "ann", "did not contain client auth"),
    (CLIENT, request("ann"), ["client auth", "server auth"], "ann", "forbidden entries: server auth"),
    (CLIENT, request("ann", "system:masters"), ["client auth"], "ann", "system:masters group is not allowed"),
    (CLIENT, request("", "dev"), ["client auth"], "ann", "no common name"),
    (KUBELET_CLIENT, request(NODE, "system:nodes"), [*BOTH, "client auth"], NODE, ""),
    (KUBELET_CLIENT, request(NODE, "system:nodes"), ["digital signature", "client auth"], "x", ""),
    (
        KUBELET_CLIENT,
        request(NODE, "system:nodes"),
        [*BOTH, "client auth", "server auth"],
        NODE,
        "usages did not match",
    ),
    (KUBELET_CLIENT, request(NODE, "system:nodes"), ["client auth"], NODE, "usages did not match"),
    (KUBELET_CLIENT, request(NODE), [*BOTH, "client auth"], NODE, "organization is not system:nodes"),
    (KUBELET_CLIENT, request(NODE, "system:nodes", "x"), [*BOTH, "client auth"], NODE, "organization is not"),
    (KUBELET_CLIENT, request("n1", "system:nodes"), [*BOTH, "client auth"], NODE, "does not begin with system:node:"),
    (KUBELET_CLIENT, request(NODE, "system:nodes", sans=[DNS]), [*BOTH, "client auth"], NODE, "are not allowed"),
    (KUBELET_SERVING, request(NODE, "system:nodes", sans=[DNS, IP]), [*BOTH, "server auth"], NODE, ""),
    (KUBELET_SERVING, request(NODE, "system:nodes"), [*BOTH, "server auth"], NODE, "at least one DNS or IP"),
    (KUBELET_SERVING, request(NODE, "system:nodes", sans=[MAIL]), [*BOTH, "server auth"], NODE, "Email and URI"),
    (KUBELET_SERVING, request(NODE, "system:nodes", sans=[DNS]), [*BOTH, "client auth"], NODE, "usages did not match"),
    (KUBELET_SERVING, request(NODE, "system:nodes", sans=[DNS]), [*BOTH, "server auth"], "eve", "requested by eve"),
    ("kubernetes.io/legacy-unknown", request("x"), ["client auth"], "x", "is no signer of this cluster"),
]


@pytest.mark.parametrize(("signer", "asked", "usages", "username", "why"), ROWS)
def test_what_is_signed(signer, asked, usages, username, why):
    found = refusal(signer, asked, usages, username)
    assert (why in found) if why else found == ""


@pytest.mark.parametrize(
    ("seconds", "days", "life"),
    [
        (None, 3650, timedelta(days=365)),
        (3600, 3650, timedelta(hours=1)),
        (60, 3650, timedelta(minutes=10)),
        (10**9, 3650, timedelta(days=365)),
        (None, 30, timedelta(days=30)),
    ],
)
def test_how_long(seconds, days, life):
    pem = issue(authority(days), request("ann"), ["client auth"], seconds, NOW.timestamp())
    made = x509.load_pem_x509_certificate(pem.encode())
    assert made.not_valid_after_utc == NOW + life and made.not_valid_before_utc == NOW - timedelta(minutes=5)


def test_what_it_says():
    ca, asked = authority(), request(NODE, "system:nodes", sans=[DNS, IP])
    made = x509.load_pem_x509_certificate(issue(ca, asked, [*BOTH, "server auth"], None, NOW.timestamp()).encode())
    made.verify_directly_issued_by(ca.certificate)
    assert made.subject == asked.subject and made.public_key() == KEY.public_key()
    assert list(made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.SERVER_AUTH
    ]
    assert list(made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value) == [DNS, IP]
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = made.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature and usage.key_encipherment and not usage.key_cert_sign


OWN = x509.DNSName("n1.nodes.faaslite.internal")


@pytest.mark.parametrize(
    ("sans", "usages", "username", "approved"),
    [
        ([OWN], [*BOTH, "server auth"], NODE, True),
        ([OWN], [*BOTH, "server auth"], "system:node:n2", False),
        ([OWN], [*BOTH, "client auth"], NODE, False),
        ([OWN, IP], [*BOTH, "server auth"], NODE, False),
        ([OWN, x509.DNSName("kubernetes")], [*BOTH, "server auth"], NODE, False),
        ([x509.DNSName("n2.nodes.faaslite.internal")], [*BOTH, "server auth"], NODE, False),
        ([DNS], [*BOTH, "server auth"], NODE, False),
        ([], [*BOTH, "server auth"], NODE, False),
    ],
)
def test_a_nodes_server_is_approved_for_its_own_name_alone(sans, usages, username, approved):
    assert is_kubelet_serving(request(NODE, "system:nodes", sans=sans), usages, username) is approved
