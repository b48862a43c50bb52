"""The cluster's certificates and tokens, made on first start and kept in the data dir.

One CA signs the API server's serving certificate, the nodes' serving certificates and the API server's client
certificate towards nodes. Keys are P-256; files are readable by their owner only.
"""

from __future__ import annotations

import ipaddress
import json
import os
import secrets
import ssl
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypedDict

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from core.api.nodenames import serving_name
from core.controllers.signing import Authority
from faaslite.api.names import SYSTEM_NAMESPACE
from faaslite.launch.errors import LaunchError

__all__ = ["Identity", "Pki", "make_ca", "write_private"]

_CA_LIFE = timedelta(days=3650)
_LEAF_LIFE = timedelta(days=365)
_RENEW_BEFORE = timedelta(days=60)


class Identity(TypedDict):
    """Who a token stands for."""

    user: str
    groups: list[str]


def _identities(nodes: Sequence[str]) -> Mapping[str, Identity]:
    system = f"system:serviceaccount:{SYSTEM_NAMESPACE}"
    accounts = ["system:serviceaccounts", f"system:serviceaccounts:{SYSTEM_NAMESPACE}"]
    return {
        "admin": {"user": "admin", "groups": ["system:masters"]},
        "gateway": {"user": f"{system}:gateway", "groups": accounts},
        "jobs": {"user": f"{system}:jobs", "groups": accounts},
        **{f"node/{each}": {"user": f"system:node:{each}", "groups": ["system:nodes"]} for each in nodes},
    }


class Pki:
    """Everything under `folder`; what is missing or about to expire is made by `prepare`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca_file = folder / "ca.crt"
        self._tokens_file = folder / "tokens.json"
        self._tokens: dict[str, str] = {}

    def prepare(
        self, addresses: Sequence[str], nodes: Sequence[str], now: datetime | None = None, gateway: Sequence[str] = ()
    ) -> None:
        """Make what isn't there. `addresses` are the IPs and names that the API server is reached at; `gateway` those of the gateway, where it is to
        have a certificate of this CA.

        Raises LaunchError where a file can't be read or doesn't fit the others.
        """
        now = now or datetime.now(UTC)
        try:
            certificate, key = self._ca(now)
            names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", *addresses]
            self._leaf("apiserver", certificate, key, now, "kube-apiserver", names, server=True)
            self._leaf(
                "apiserver-kubelet-client", certificate, key, now, "kube-apiserver-kubelet-client", [], server=False
            )
            if gateway:
                self._leaf("gateway", certificate, key, now, "faaslite-gateway", ["localhost", *gateway], server=True)
            for node in nodes:
                self._leaf(
                    f"node-{node}",
                    certificate,
                    key,
                    now,
                    f"system:node:{node}",
                    [node, serving_name(node), "localhost", "127.0.0.1"],
                    server=True,
                )
            self._load_tokens(nodes)
        except (OSError, ValueError) as error:
            cut_short = (self.folder / "ca-next.crt").exists()
            remedy = "run `faas certs rotate` again" if cut_short else "remove the folder to have new ones made"
            raise LaunchError(f"the certificates in {self.folder} can't be used: {error}; {remedy}") from error

    def files(self, name: str) -> tuple[Path, Path]:
        """Certificate and key of a leaf: `apiserver`, `apiserver-kubelet-client`, `node-NAME`."""
        return self.folder / f"{name}.crt", self.folder / f"{name}.key"

    def token(self, name: str) -> str:
        """The token of `admin`, `gateway`, `jobs` or `node/NAME`."""
        return self._tokens[name]

    def users(self, nodes: Sequence[str]) -> dict[str, Identity]:
        """Token -> identity, for the API server."""
        return {self._tokens[name]: identity for name, identity in _identities(nodes).items()}

    def signing_key(self) -> bytes:
        """The key (PEM) that signs the tokens of ServiceAccounts, made at its first use."""
        path = self.folder / "service-account.key"
        if not path.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            pem = key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            write_private(path, pem)
        try:
            data = path.read_bytes()
            found = serialization.load_pem_private_key(data, None)
        except (OSError, ValueError, TypeError) as error:
            raise LaunchError(
                f"{path}, which signs the tokens of ServiceAccounts, can't be read: {error}; restore it, or remove it to have a new one made: "
                "tokens that were given out are then worth nothing"
            ) from error
        if not isinstance(found, ec.EllipticCurvePrivateKey):
            raise LaunchError(f"{path} is no elliptic-curve key; remove it to have a new one made")
        return data

    def authority(self) -> Authority:
        """What signs certificate requests. Raises LaunchError."""
        try:
            found = self._read("ca")
        except (OSError, ValueError) as error:
            raise LaunchError(f"the cluster's CA in {self.folder} can't be read: {error}") from error
        if found is None:
            raise LaunchError(f"the cluster's CA is not in {self.folder}")
        return Authority(*found)

    def server_context(self, name: str, *, ask_client: bool = False) -> ssl.SSLContext:
        """For a listener; with `ask_client` a client may show a certificate, which must be of this CA."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(*self.files(name))
        if ask_client:
            context.load_verify_locations(self.ca_file)
            context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def client_context(self, name: str = "") -> ssl.SSLContext:
        """For connections to servers of this CA, with a client certificate where `name` is given."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        if name:
            context.load_cert_chain(*self.files(name))
        return context

    def _ca(self, now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        found = self._read("ca")
        if found is not None:
            if found[0].not_valid_after_utc <= now:
                raise LaunchError(
                    f"the cluster's CA {self.ca_file} expired on {found[0].not_valid_after_utc:%Y-%m-%d}; `faas certs rotate` three times "
                    "makes a new one, and everybody needs the kubeconfig again"
                )
            return found
        certificate, key = make_ca(now, "faaslite-ca")
        self._write("ca", certificate, key)
        return certificate, key

    def _leaf(
        self,
        file: str,
        ca: x509.Certificate,
        ca_key: ec.EllipticCurvePrivateKey,
        now: datetime,
        common_name: str,
        names: Sequence[str],
        *,
        server: bool,
    ) -> None:
        wanted = {_general_name(each) for each in names}
        found = self._read(file)
        if found is not None and _still_good(found[0], ca, wanted, now):
            return
        key = ec.generate_private_key(ec.SECP256R1())
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
        if not server:
            subject.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:masters"))
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(ca.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(min(now + _LEAF_LIFE, ca.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        )
        if wanted:
            builder = builder.add_extension(x509.SubjectAlternativeName(list(wanted)), critical=False)
        self._write(file, builder.sign(ca_key, hashes.SHA256()), key)

    def _read(self, name: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None:
        certificate_file, key_file = self.files(name)
        try:
            certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
            key = serialization.load_pem_private_key(key_file.read_bytes(), None)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise ValueError(f"{certificate_file.name} or {key_file.name} can't be read: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise ValueError(f"{key_file.name} is not the key of {certificate_file.name}")
        return certificate, key

    def _write(self, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        certificate_file, key_file = self.files(name)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_private(key_file, pem)
        write_private(certificate_file, certificate.public_bytes(serialization.Encoding.PEM))

    def _load_tokens(self, nodes: Sequence[str]) -> None:
        try:
            found = json.loads(self._tokens_file.read_bytes())
        except FileNotFoundError:
            found = {}
        except ValueError as error:
            raise ValueError(f"{self._tokens_file.name} can't be read: {error}") from error
        if not isinstance(found, dict) or not all(isinstance(each, str) and each for each in found.values()):
            raise ValueError(f"{self._tokens_file.name} isn't a table of tokens")
        self._tokens = found
        missing = [name for name in _identities(nodes) if name not in self._tokens]
        if missing:
            self._tokens.update({name: secrets.token_urlsafe(32) for name in missing})
            write_private(self._tokens_file, json.dumps(self._tokens, indent=1).encode())


def make_ca(now: datetime, common_name: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A new certificate authority, for ten years."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _still_good(leaf: x509.Certificate, ca: x509.Certificate, names: set[x509.GeneralName], now: datetime) -> bool:
    if leaf.issuer != ca.subject or leaf.not_valid_after_utc - now < _RENEW_BEFORE:
        return False
    try:
        leaf.verify_directly_issued_by(ca)
        alternative = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return not names
    except InvalidSignature:
        return False
    return names <= set(alternative.value)


def write_private(path: Path, data: bytes) -> None:
    """Replace a file in one step; only its owner can read it."""
    scratch = path.with_name(path.name + ".new")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    scratch.replace(path)
