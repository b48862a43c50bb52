"""A cluster's share of a Docker engine."""

from __future__ import annotations

import http.server
import json
import os
import socketserver
import threading
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest
from cryptography import x509

from faaslite.launch.cluster import prepare
from faaslite.launch.engine import _RANGES, EngineShare, clean, free_range, has_image, left, settle
from faaslite.launch.errors import LaunchError
from faaslite.launch.home import Home
from faaslite.launch.settings import ClusterSettings


class _Engine(http.server.BaseHTTPRequestHandler):
    answers = {"/_ping": b"OK", "/networks": json.dumps([{"IPAM": {"Config": [{"Subnet": "10.244.0.0/16"}, {"Subnet": "fd00::/64"}]}}, {"IPAM": {"Config": None}}]).encode()}  # fmt: skip

    def do_GET(self) -> None:
        body = self.answers.get(self.path)
        self.send_response(200 if body is not None else 404)
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_: object) -> None:
        return


class _Server(socketserver.UnixStreamServer):
    def get_request(self):  # type: ignore[no-untyped-def]
        return (super().get_request()[0], ("unix", 0))


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Answers what a cluster asks before it starts."""
    path = f"{os.path.relpath(tmp_path)}/e"
    with _Server(path, _Engine) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        yield f"unix://{path}"
        server.shutdown()
        thread.join()


@pytest.fixture
def home(short_path: Path) -> Home:
    found = Home(short_path / "home")
    found.path.mkdir()
    return found


def test_a_range_is_free_of_what_is_in_use() -> None:
    assert free_range([]) == "10.244.0.0/16"
    assert free_range([ip_network("10.244.1.0/24"), ip_network("0.0.0.0/0")]) == "10.245.0.0/16"
    assert free_range([], begin=3) == "10.247.0.0/16"
    assert free_range([ip_network("10.243.0.0/16")], begin=_RANGES - 1) == "10.244.0.0/16"
    assert free_range([ip_network("10.0.0.0/8")], begin=7).startswith("172.")
    with pytest.raises(LaunchError, match="free /16"):
        free_range([ip_network("10.0.0.0/8"), ip_network("172.16.0.0/12")])


def test_a_share_stays_until_it_is_cleaned(home: Home, engine: str) -> None:
    first = settle(home)
    assert first.url == engine and not ip_network(first.supernet).overlaps(ip_network("10.244.0.0/16"))
    assert settle(home) == first == left(home)
    assert first.node("node-1") == f"{first.cluster}-node-1"
    assert ip_network(first.pod_cidr(2)).subnet_of(ip_network(first.supernet))  # type: ignore[arg-type]
    assert first.pod_cidr(1) != first.pod_cidr(2)
    assert not has_image(first, "faaslite/python")
    assert [each.name for each in home.path.iterdir()] == ["engine.json"]


def test_no_engine_is_said_with_what_to_do(home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none")
    with pytest.raises(LaunchError, match="--runtime process"):
        settle(home)
    monkeypatch.setenv("DOCKER_HOST", "ssh://there")
    with pytest.raises(LaunchError, match="unix:///path"):
        settle(home)
    assert left(home) is None


def test_cleaning_without_a_share_is_nothing_and_without_its_engine_is_to_be_tried_again(home: Home, tmp_path: Path) -> None:  # fmt: skip
    assert clean(home) == 0
    share = EngineShare("abc", f"unix://{tmp_path}/none", "10.1.0.0/16")
    home.engine.write_text(json.dumps({"cluster": share.cluster, "url": share.url, "supernet": share.supernet}))
    with pytest.raises(LaunchError, match="faas down"):
        clean(home)
    assert left(home) == share


@pytest.mark.parametrize(("listen", "bound", "tls"), [("127.0.0.1", 2, False), ("0.0.0.0", 0, False), ("::", 0, False), ("127.0.0.1", 2, True)])  # fmt: skip
def test_containers_reach_the_gateway_at_the_bridge_that_is_to_come(
    home: Home, engine: str, listen: str, bound: int, tls: bool
) -> None:
    settings = ClusterSettings(runtime="docker", listen=listen, api_port=0, gateway_port=0, workers=2, gateway_tls=tls)
    cluster = prepare(home, settings)
    try:
        address = next(ip_network(cluster.engine.pod_cidr(1)).hosts()) if cluster.engine else None
        assert [each.getsockname() for each in cluster.bridge_listeners] == [
            (str(address), settings.gateway_port)
        ] * bound
        scheme = "https" if tls else "http"
        assert cluster.inner_url == f"{scheme}://{address}:{settings.gateway_port}"
        assert cluster.builds == "python"
        if tls:
            names = x509.load_pem_x509_certificate(cluster.pki.files("gateway")[0].read_bytes()).extensions
            found = names.get_extension_for_class(x509.SubjectAlternativeName).value
            assert address in found.get_values_for_type(x509.IPAddress)
    finally:
        cluster.close_listeners()
        cluster.remove_sockets()


def test_an_engine_elsewhere_has_no_bridge_here() -> None:
    assert EngineShare("abc", "tcp://10.9.9.9:2375", "10.1.0.0/16").bridge == ""
    assert EngineShare("abc", "unix:///run/docker.sock", "10.1.0.0/16").bridge == "10.1.1.1"
