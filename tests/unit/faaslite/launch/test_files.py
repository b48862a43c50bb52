"""The data dir, the certificates and the kubeconfig: private, stable over restarts, and clear when something is off."""

import datetime
import ssl

import pytest
import yaml
from cryptography import x509

from cli.kubeconfigs import gateway_of
from faaslite.launch import kubeconfig
from faaslite.launch.errors import LaunchError
from faaslite.launch.home import Home
from faaslite.launch.pki import Pki
from faaslite.launch.settings import ClusterSettings


def private(path):
    return path.stat().st_mode & 0o077 == 0


def test_home_is_private_and_versioned(short_path):
    home = Home(short_path / "data")
    home.prepare()
    home.prepare()
    assert private(home.path)
    assert (home.path / "VERSION").read_text() == "1\n"
    (home.path / "VERSION").write_text("99")
    with pytest.raises(LaunchError, match="newer faaslite"):
        home.prepare()
    (home.path / "VERSION").write_text("x")
    with pytest.raises(LaunchError, match="not a number"):
        home.prepare()


def test_home_refuses_what_cannot_work(short_path):
    with pytest.raises(LaunchError, match="too long a path"):
        Home(short_path / ("x" * 120)).prepare()
    (short_path / "file").write_text("")
    with pytest.raises(LaunchError, match="can't be used"):
        Home(short_path / "file").prepare()


def test_pki_is_made_once_and_verifies(tmp_path):
    pki = Pki(tmp_path)
    pki.prepare(["127.0.0.1", "example.test"], ["node-1"])
    assert all(private(each) for each in tmp_path.iterdir())
    certificate = x509.load_pem_x509_certificate(pki.files("apiserver")[0].read_bytes())
    ca = x509.load_pem_x509_certificate(pki.ca_file.read_bytes())
    certificate.verify_directly_issued_by(ca)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "example.test" in names.get_values_for_type(x509.DNSName)
    assert isinstance(pki.server_context("apiserver"), ssl.SSLContext)
    assert pki.server_context("node-node-1", ask_client=True).verify_mode is ssl.CERT_OPTIONAL
    before, token = certificate.serial_number, pki.token("admin")
    again = Pki(tmp_path)
    again.prepare(["127.0.0.1"], ["node-1", "node-2"])
    assert x509.load_pem_x509_certificate(pki.files("apiserver")[0].read_bytes()).serial_number == before
    assert again.token("admin") == token
    assert again.users(["node-2"])[again.token("node/node-2")]["user"] == "system:node:node-2"
    assert len(set(again.users(["node-1", "node-2"]))) == 5


def test_pki_renews_what_lacks_a_name_or_ends_soon_and_says_when_the_ca_is_over(tmp_path):
    pki = Pki(tmp_path)
    now = datetime.datetime.now(datetime.UTC)
    pki.prepare(["127.0.0.1"], [], now)

    def serial():
        return x509.load_pem_x509_certificate(pki.files("apiserver")[0].read_bytes()).serial_number

    first = serial()
    pki.prepare(["127.0.0.2"], [], now)
    second = serial()
    assert second != first
    pki.prepare(["127.0.0.2"], [], now + datetime.timedelta(days=320))
    assert serial() != second
    with pytest.raises(LaunchError, match="CA .* expired"):
        pki.prepare(["127.0.0.2"], [], now + datetime.timedelta(days=3651))


def test_pki_says_which_file_is_broken(tmp_path):
    pki = Pki(tmp_path)
    pki.prepare([], [])
    pki.files("ca")[1].write_bytes(b"nonsense")
    with pytest.raises(LaunchError, match="remove the folder"):
        pki.prepare([], [])


def test_kubeconfig_is_private_and_complete(tmp_path):
    path = tmp_path / "kubeconfig"
    kubeconfig.write(path, "https://127.0.0.1:6443", b"CA", "secret")
    assert private(path)
    document = yaml.safe_load(path.read_text())
    assert document["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:6443"
    assert document["users"][0]["user"]["token"] == "secret"
    assert document["current-context"] == document["contexts"][0]["name"]
    assert not gateway_of(document)


def test_kubeconfig_says_where_the_gateway_is(tmp_path):
    document = yaml.safe_load(
        kubeconfig.render("https://127.0.0.1:6443", b"CA", "secret", gateway="http://127.0.0.1:8080")
    )
    assert gateway_of(document) == "http://127.0.0.1:8080"


def test_settings_are_kept_and_checked(tmp_path):
    path = tmp_path / "cluster.json"
    assert ClusterSettings.load(path) is None
    settings = ClusterSettings.make(nodes=3, gateway_port=0, listen="0.0.0.0")
    settings.save(path)
    assert ClusterSettings.load(path) == settings
    assert settings.api_url == "https://127.0.0.1:6443"
    assert ClusterSettings.make(listen="::1").gateway_url == "http://[::1]:8080"
    for wrong, message in (
        ({"nodes": 0}, "--nodes"),
        ({"listen": "here"}, "not an IP address"),
        ({"runtime": "vm"}, "--runtime"),
    ):
        with pytest.raises(LaunchError, match=message):
            ClusterSettings.make(**wrong)
    path.write_text("{")
    with pytest.raises(LaunchError, match="can't be read"):
        ClusterSettings.load(path)
