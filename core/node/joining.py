"""How a machine becomes a node: with a bootstrap token it asks for a client certificate, and is that node from then on.

The key is made here and never leaves the machine. After https://kubernetes.io/docs/reference/access-authn-authz/kubelet-tls-bootstrapping/.
"""

from __future__ import annotations

import asyncio
import base64
from contextlib import aclosing
from typing import Any, NamedTuple

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from core.api.kinds import CERTIFICATE_SIGNING_REQUEST
from core.api.nodenames import serving_name
from core.client.rest import Client
from core.errors import ApiError, FaasliteError, Unauthorized

__all__ = ["Credentials", "JoinError", "join", "serving_certificate"]

_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
_SERVING = "kubernetes.io/kubelet-serving"
_USAGES = ["digital signature", "key encipherment"]
PATIENCE = 60.0


class JoinError(FaasliteError):
    """The machine can't become a node; the message says why, and what to do."""


class Credentials(NamedTuple):
    """PEM."""

    certificate: bytes
    key: bytes


async def join(client: Client, name: str, *, patience: float = PATIENCE) -> Credentials:
    """A certificate for the node `name`, asked for through `client`: with a bootstrap token, or as the node itself for a newer one.

    Waits until it is issued, `patience` seconds at most. Raises `JoinError`.
    """
    return await _certified(client, name, _CLIENT, patience)


async def serving_certificate(client: Client, name: str, *, patience: float = PATIENCE) -> Credentials:
    """The certificate of the agent's own server, asked for through `client` as the node itself. Raises `JoinError`."""
    return await _certified(client, name, _SERVING, patience)


async def _certified(client: Client, name: str, signer: str, patience: float) -> Credentials:
    key = ec.generate_private_key(ec.SECP256R1())
    try:
        made = await client.create(CERTIFICATE_SIGNING_REQUEST, _request(key, name, signer))
        async with asyncio.timeout(patience):
            status = await _decided(client, made)
    except Unauthorized as error:
        raise JoinError(
            f"node {name}: the cluster doesn't know the token: it is wrong or has expired; `faas node token` makes a new one"
        ) from error
    except ApiError as error:
        raise JoinError(f"node {name}: the API server doesn't give a certificate: {error.message}") from error
    except TimeoutError as error:
        raise JoinError(
            f"node {name}: nobody has approved its certificate request; see `kubectl get csr`, then `kubectl certificate approve {made['metadata']['name']}`"
        ) from error
    for each in status.get("conditions") or ():
        if each["type"] in ("Denied", "Failed"):
            raise JoinError(
                f"node {name}: its certificate request was {each['type'].lower()}: {each.get('message') or each.get('reason')}"
            )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Credentials(base64.b64decode(status["certificate"]), pem)


def _request(key: ec.EllipticCurvePrivateKey, name: str, signer: str) -> dict[str, Any]:
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{name}"),
        ]
    )
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if signer == _SERVING:
        names = x509.SubjectAlternativeName([x509.DNSName(serving_name(name))])
        builder = builder.add_extension(names, critical=False)
    signed = builder.sign(key, hashes.SHA256())
    purpose = "server auth" if signer == _SERVING else "client auth"
    request = base64.b64encode(signed.public_bytes(serialization.Encoding.PEM)).decode()
    return {
        "metadata": {"generateName": f"node-csr-{name}-"},
        "spec": {"request": request, "signerName": signer, "usages": [*_USAGES, purpose]},
    }


async def _decided(client: Client, made: dict[str, Any]) -> dict[str, Any]:
    """The request's status once there is a certificate, or none will come."""
    name, version = made["metadata"]["name"], made["metadata"]["resourceVersion"]
    while True:
        watch = client.watch(
            CERTIFICATE_SIGNING_REQUEST, "", version=version, fields=f"metadata.name={name}", seconds=60
        )
        async with aclosing(watch) as events:
            async for batch in events:
                for event in batch:
                    document = msgspec.json.decode(event.object)
                    version = document["metadata"]["resourceVersion"]
                    if event.type == "DELETED":
                        raise JoinError(f"the certificate request {name} was deleted; join again")
                    status: dict[str, Any] = document.get("status") or {}
                    types = {each["type"] for each in status.get("conditions") or ()}
                    if status.get("certificate") or types & {"Denied", "Failed"}:
                        return status
