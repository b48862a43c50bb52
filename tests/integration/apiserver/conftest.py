"""A real API server over TLS in the test's own process, and the real kubectl beside it."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import os
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from core.api.nodenames import serving_name
from core.apiserver.app import ApiServer
from core.apiserver.authn import User
from core.client.http import HttpTransport
from core.client.informer import Informers
from core.client.rest import Client
from core.controllers.manager import CONTROLLERS, Controllers
from core.serving import AsgiServer
from core.store.memory import MemoryStore
from faaslite.launch.listeners import bind
from faaslite.launch.pki import Pki as Authority

TOKENS = {
    "admin-token": User("admin", ("system:masters",), "u-1"),
    "node-token": User("system:node:n1", ("system:nodes",)),
    "gateway-token": User("system:serviceaccount:faaslite-system:gateway", ("system:serviceaccounts",)),
    "nobody-token": User("nobody"),
}


@dataclass(frozen=True)
class Pki:
    authority: Path
    certificate: Path
    key: Path


def _signed(
    name: str, key: ec.EllipticCurvePrivateKey, by: x509.Name, by_key: ec.EllipticCurvePrivateKey, authority: bool
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if authority:
        builder = builder.add_extension(
            x509.KeyUsage(True, False, False, False, False, True, True, False, False), critical=True
        ).add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    else:
        names = [
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            x509.DNSName("localhost"),
            x509.DNSName(serving_name("n1")),
        ]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False).add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(by_key.public_key()), critical=False
        )
    return builder.sign(by_key, hashes.SHA256())


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    folder = tmp_path_factory.mktemp("pki")
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    authority = _signed("test authority", authority_key, subject, authority_key, True)
    certificate = _signed("apiserver", key, subject, authority_key, False)
    made = Pki(folder / "ca.crt", folder / "server.crt", folder / "server.key")
    made.authority.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    made.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made


@dataclass
class Serving:
    """A server that is being served: its URL, its parts, and a client context that trusts it."""

    api: ApiServer
    store: MemoryStore
    url: str
    pki: Pki

    def client_ssl(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.pki.authority))


@pytest.fixture
async def serving(pki: Pki) -> AsyncIterator[Serving]:
    store = MemoryStore()
    api = ApiServer(store, tokens=TOKENS)
    await api.start()
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        api,
        ssl_certfile=str(pki.certificate),
        ssl_keyfile=str(pki.key),
        log_level="warning",
        access_log=False,
        ws="none",
        lifespan="off",
        timeout_graceful_shutdown=5,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    serve = asyncio.create_task(server._serve([listener]))
    try:
        yield Serving(api, store, f"https://127.0.0.1:{listener.getsockname()[1]}", pki)
    finally:
        await api.stop()
        server.should_exit = True
        await serve
        listener.close()
        await store.close()


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Kubectl = Callable[..., Awaitable[Result]]


@pytest.fixture
def kubectl_environment(serving: Serving, tmp_path: Path) -> dict[str, str]:
    binary = shutil.which("kubectl")
    assert binary, "kubectl is not installed"
    config = tmp_path / "kubeconfig"
    config.write_text(
        f"""apiVersion: v1
kind: Config
current-context: test
clusters: [{{name: test, cluster: {{server: "{serving.url}", certificate-authority: "{serving.pki.authority}"}}}}]
users: [{{name: admin, user: {{token: admin-token}}}}]
contexts: [{{name: test, context: {{cluster: test, user: admin}}}}]
"""
    )
    return {"KUBECONFIG": str(config), "HOME": str(tmp_path), "PATH": os.environ["PATH"]}


@pytest.fixture
def kubectl(kubectl_environment: dict[str, str]) -> Kubectl:
    """Runs kubectl to its end; a failure fails the test unless `check=False`."""

    async def run(*arguments: str, stdin: str = "", check: bool = True, **environment: str) -> Result:
        process = await asyncio.create_subprocess_exec(
            "kubectl",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**kubectl_environment, **environment},
        )
        try:
            async with asyncio.timeout(30):
                out, err = await process.communicate(stdin.encode())
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        found = Result(process.returncode or 0, out.decode(), err.decode())
        assert not check or found.code == 0, f"kubectl {' '.join(arguments)}: {found.err}\n{found.out}"
        return found

    return run


PLANE_TOKENS = {
    "admin-token": User("admin", ("system:masters",)),
    "ann-token": User("ann", ("dev",), "u-ann"),
    "node-token": User("system:node:n1", ("system:nodes",)),
}


@dataclass
class Plane:
    api: ApiServer
    pki: Authority
    url: str
    now: list[float]
    clients: list[Client]

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.pki.ca_file))

    @staticmethod
    def pem(key: Any) -> bytes:
        return pem(key)

    def client(self, token: str = "", certificate: str = "", key: Any = None, folder: Path | None = None) -> Client:
        context = self.context()
        if certificate and folder is not None:
            file = folder / "client.pem"
            file.write_bytes(certificate.encode() + pem(key))
            context.load_cert_chain(file)
        made = Client(HttpTransport(self.url, token=token, ssl=context))
        self.clients.append(made)
        return made


def pem(key: Any) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    pki = Authority(tmp_path / "pki")
    (tmp_path / "pki").mkdir()
    pki.prepare(["127.0.0.1"], ["n1"])
    now = [datetime.datetime.now(UTC).timestamp()]
    store = MemoryStore()
    api = ApiServer(store, tokens=PLANE_TOKENS)
    local = Client(api.local(User("system:kube-controller-manager", ("system:masters",))))
    informers = Informers(local)
    controllers = Controllers(
        local,
        informers,
        authority=pki.authority,
        clock=lambda: now[0],
        controllers={each: CONTROLLERS[each] for each in ("certificates", "token-cleaner")},
    )
    listener = bind("127.0.0.1", 0, "the API server", "--api-port")[0]
    url = f"https://127.0.0.1:{listener.getsockname()[1]}"
    server = AsgiServer(api, listener, pki.server_context("apiserver", ask_client=True))
    for each in (api, informers, controllers, server):
        await each.start()
    made = Plane(api, pki, url, now, [])
    yield made
    for each in made.clients:
        await each.close()
    for each in (server, controllers, informers, api):
        await each.stop()
    await store.close()
