"""What every process of one cluster is made from: its data dir, settings, certificates, listeners."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address

from core.client.http import HttpTransport
from core.client.rest import Client
from faaslite.api.names import PORT
from faaslite.launch import kubeconfig, slices
from faaslite.launch.auditing import audit_policy
from faaslite.launch.engine import EngineShare, left, settle
from faaslite.launch.errors import LaunchError
from faaslite.launch.home import Home
from faaslite.launch.identity import oidc
from faaslite.launch.listeners import bind, bind_unix, interface_addresses
from faaslite.launch.pki import Pki
from faaslite.launch.settings import ClusterSettings

__all__ = ["Cluster", "node_names", "prepare"]


def node_names(settings: ClusterSettings) -> list[str]:
    """`node-1` and so on."""
    return [f"node-{number}" for number in range(1, settings.nodes + 1)]


@dataclass(slots=True)
class Cluster:
    """One machine's cluster, prepared: what is on disk is there, listeners are bound."""

    home: Home
    settings: ClusterSettings
    pki: Pki
    runtime: str
    """`process` or `docker`: what `auto` came to."""
    engine: EngineShare | None = None
    """Where Docker nodes run their Pods."""
    api_listeners: list[socket.socket] = field(default_factory=list)
    gateway_listeners: list[socket.socket] = field(default_factory=list)
    bridge: str = ""
    """This machine's address for containers of an engine, where they can't have the one that is listened on."""
    bridge_listeners: list[socket.socket] = field(default_factory=list)
    """The gateway's there, one a worker."""
    claims: list[socket.socket] = field(default_factory=list)
    """What holds the networks of process nodes."""

    @property
    def nodes(self) -> list[str]:
        return node_names(self.settings)

    @property
    def inner_url(self) -> str:
        """Where Pods reach the gateway."""
        settings = self.settings
        scheme = "https" if settings.gateway_tls else "http"
        return f"{scheme}://{self.bridge}:{settings.gateway_port}" if self.bridge else settings.gateway_url

    @property
    def builds(self) -> str:
        """Where `faas deploy` has dependencies installed by default: of all runtimes in the `cluster`, of `python`, or of none (`local`)."""
        if self.runtime == "process":
            return "cluster"
        # A certificate that isn't the cluster's own bears other names than the bridge's address.
        return "python" if self.bridge and not self.settings.gateway_cert else "local"

    def client(self, name: str) -> Client:
        """A client of the API over HTTP as `admin`, `gateway`, `jobs` or `node/NAME`: by its Unix socket where it serves on this machine, for TLS
        between processes of one user keeps nothing from anybody and costs each message its share.
        """
        token = self.pki.token(name)
        if self.home.api_socket.exists():
            return Client(HttpTransport("http://api", token=token, unix_socket=str(self.home.api_socket)))
        transport = HttpTransport(
            self.settings.api_url, token=token, ssl=self.pki.client_context(), server_name="kubernetes"
        )
        return Client(transport)

    def gateway_tls(self) -> ssl.SSLContext | None:
        """What the gateway's listeners serve TLS with; None for plain HTTP. Raises LaunchError where the given files can't be used."""
        settings = self.settings
        if not settings.gateway_tls:
            return None
        if not settings.gateway_cert:
            return self.pki.server_context("gateway")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(settings.gateway_cert, settings.gateway_key or None)
        except OSError as error:
            raise LaunchError(
                f"--gateway-cert {settings.gateway_cert}: {error.strerror or error}; a PEM file with the chain is needed, and the key "
                "in it or in --gateway-key"
            ) from error
        return context

    def close_listeners(self) -> None:
        for each in (*self.api_listeners, *self.gateway_listeners, *self.bridge_listeners, *self.claims):
            each.close()

    def remove_sockets(self) -> None:
        """When the last process that served on them is gone."""
        self.home.api_socket.unlink(missing_ok=True)


ALL_PARTS = frozenset({"api", "gateway", "slices"})


def prepare(home: Home, settings: ClusterSettings, *, parts: Collection[str] = ALL_PARTS) -> Cluster:
    """Make what isn't there yet and take `parts`: bind the listeners of `api` and `gateway`, claim the nodes' `slices`.

    Ports of 0 become what was found and are kept, and so are the slices. Raises LaunchError where something can't be had.
    """
    home.prepare()
    if home.joined.exists():
        raise LaunchError(
            f"{home.path} is the data dir of a node that has joined a cluster; choose another with --data-dir"
        )
    audit_policy(settings)
    oidc(settings)
    runtime = settings.runtime if settings.runtime != "auto" else ("docker" if _docker_serves() else "process")
    pki = Pki(home.pki)
    bridge = _bridge(home, settings, parts) if runtime == "docker" else ""
    names = [*_own_names(settings.listen), settings.listen]
    own = settings.gateway_tls and not settings.gateway_cert
    domain = [settings.domain, f"*.{settings.domain}", f"*.default.{settings.domain}"] if settings.domain else []
    pki.prepare(names, node_names(settings), gateway=[*names, *domain, *([bridge] if bridge else [])] if own else ())
    cluster = Cluster(home, settings, pki, runtime, bridge=bridge)
    cluster.gateway_tls()
    try:
        _take(cluster, parts)
    except BaseException:
        cluster.close_listeners()
        if "api" in parts:
            cluster.remove_sockets()
        raise
    if parts:
        settings.save(home.settings)
    gateway = settings.gateway_url if settings.gateway_port else ""
    kubeconfig.write(home.kubeconfig, settings.api_url, pki.ca_file.read_bytes(), pki.token("admin"), gateway)
    return cluster


def _take(cluster: Cluster, parts: Collection[str]) -> None:
    settings = cluster.settings
    if "api" in parts:
        cluster.api_listeners = bind(settings.listen, settings.api_port, "the API server", "--api-port")
        cluster.api_listeners.append(bind_unix(cluster.home.api_socket))
        settings.api_port = cluster.api_listeners[0].getsockname()[1]
    if "gateway" in parts:
        cluster.gateway_listeners = bind(
            settings.listen, settings.gateway_port, "the gateway", "--gateway-port", shares=settings.workers
        )
        settings.gateway_port = cluster.gateway_listeners[0].getsockname()[1]
        # Who listens everywhere has the bridge as well.
        if cluster.bridge and not ip_address(settings.listen).is_unspecified:
            cluster.bridge_listeners = bind(
                cluster.bridge,
                settings.gateway_port,
                "the gateway",
                "--gateway-port",
                shares=settings.workers,
                coming=True,
            )
    if "slices" in parts and cluster.runtime == "process":
        claimed = slices.claim(settings.nodes, settings.slices, PORT)
        settings.slices, cluster.claims = [number for number, _ in claimed], [each for _, each in claimed]
    if "slices" in parts and cluster.runtime == "docker":
        cluster.engine = settle(cluster.home)


def _bridge(home: Home, settings: ClusterSettings, parts: Collection[str]) -> str:
    """Of a cluster with Docker nodes that is listened to on loopback, or everywhere; an address of its own is one for containers as well."""
    address = ip_address(settings.listen)
    if not address.is_loopback and not address.is_unspecified:
        return ""
    share = settle(home) if "slices" in parts else left(home)
    return share.bridge if share is not None else ""


def _own_names(listen: str) -> Iterator[str]:
    yield "127.0.0.1"
    if listen in ("0.0.0.0", "::"):  # noqa: S104
        yield socket.gethostname()
        yield from interface_addresses()
        with contextlib.suppress(OSError):
            yield from sorted({str(each[4][0]) for each in socket.getaddrinfo(socket.gethostname(), None)})


def _docker_serves() -> bool:
    """Whether an engine answers where the docker command would look for it, and has the Python runtime's image."""
    where = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not where.startswith("unix://"):
        return True
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(where.removeprefix("unix://"))
            probe.sendall(b"GET /images/faaslite/python/json HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")
            return probe.recv(64).startswith(b"HTTP/1.1 200")
        except OSError:
            return False
