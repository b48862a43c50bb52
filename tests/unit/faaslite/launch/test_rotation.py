"""A new CA in three steps: who trusts whom after each, what is left of one that was cut short, and when certificates end."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from faaslite.launch import rotation
from faaslite.launch.errors import LaunchError
from faaslite.launch.pki import Pki
from faaslite.launch.rotation import advance, expiries, phase

NOW = datetime.now(UTC)


@pytest.fixture
def pki(tmp_path):
    made = Pki(tmp_path)
    made.prepare(["127.0.0.1"], ["node-1"], gateway=["localhost"])
    return made


def restart(pki):
    pki.prepare(["127.0.0.1"], ["node-1"], gateway=["localhost"])


def agree(server, client):
    """Whether a TLS handshake between the two contexts succeeds."""
    ends = []
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends.append(client.wrap_bio(to_client, to_server, server_hostname="localhost"))
    ends.append(server.wrap_bio(to_server, to_client, server_side=True))
    done = [False, False]
    for _ in range(10):
        for number, end in enumerate(ends):
            try:
                end.do_handshake()
                done[number] = True
                if number == 1:
                    end.write(b"x")
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return False
        if all(done):
            try:
                return ends[0].read(1) == b"x"
            except ssl.SSLError:
                return False
    return False


def trusting(pem, pki=None, name=""):
    context = ssl.create_default_context(cadata=pem)
    if name:
        context.load_cert_chain(*pki.files(name))
    return context


def test_nobody_is_cut_off_who_takes_the_kubeconfig_between_two_steps(pki):
    old = pki.ca_file.read_text()
    assert (phase(pki.folder), advance(pki.folder)) == ("begin", "begin")
    restart(pki)
    both = pki.ca_file.read_text()
    assert both.count("BEGIN CERTIFICATE") == 2
    server = pki.server_context("apiserver", ask_client=True)
    assert agree(server, trusting(old)) and agree(server, trusting(both)), "the old one still signs"
    early = ssl.create_default_context(cadata=both)
    early.load_cert_chain(*pki.files("apiserver-kubelet-client"))

    assert (phase(pki.folder), advance(pki.folder)) == ("switch", "switch")
    restart(pki)
    server, node = pki.server_context("apiserver", ask_client=True), pki.server_context("node-node-1", ask_client=True)
    assert agree(server, trusting(both)) and not agree(server, trusting(old))
    assert agree(node, early), "a client certificate of the old CA still counts"
    assert agree(node, pki.client_context("apiserver-kubelet-client"))
    assert agree(pki.server_context("gateway"), trusting(both))

    assert (phase(pki.folder), advance(pki.folder)) == ("finish", "finish")
    restart(pki)
    server = pki.server_context("apiserver", ask_client=True)
    assert agree(server, trusting(both)) and not agree(server, early) and not agree(server, trusting(old))
    assert pki.ca_file.read_text().count("BEGIN CERTIFICATE") == 1 and phase(pki.folder) == "begin"
    assert not list(pki.folder.glob("ca-next*")) and all(
        each.stat().st_mode & 0o077 == 0 for each in pki.folder.iterdir()
    )
    assert pki.authority().certificate == x509.load_pem_x509_certificate(pki.ca_file.read_bytes())


@pytest.mark.parametrize("step", ["begin", "switch"])
@pytest.mark.parametrize("written", [0, 1, 2])
def test_a_step_that_is_cut_short_is_taken_again(pki, monkeypatch, step, written):
    if step == "switch":
        advance(pki.folder)
    left = [written]
    real_write, real_replace = rotation.write_private, rotation.Path.replace

    def write(path, data):
        if not left[0]:
            raise OSError(5, "Input/output error")
        left[0] -= 1
        real_write(path, data)

    def replace(self, target):
        if self.name == "ca-next.key" and not left[0]:
            raise OSError(5, "Input/output error")
        return real_replace(self, target)

    with monkeypatch.context() as broken:
        broken.setattr(rotation, "write_private", write)
        broken.setattr(rotation.Path, "replace", replace)
        try:
            advance(pki.folder)
        except LaunchError as error:
            assert "Input/output error; try again" in str(error)
    while phase(pki.folder) != "begin" or left[0] >= 0:
        advance(pki.folder)
        left[0] = -1
        if phase(pki.folder) == "begin":
            break
    restart(pki)
    assert agree(pki.server_context("apiserver"), trusting(pki.ca_file.read_text()))
    assert pki.ca_file.read_text().count("BEGIN CERTIFICATE") == 1


def test_a_start_amid_a_step_says_what_to_do(pki):
    advance(pki.folder)
    new = (pki.folder / "ca-next.crt").read_bytes()
    pki.ca_file.write_bytes(new + pki.ca_file.read_bytes())  # cut short before the key
    with pytest.raises(LaunchError, match="run `faas certs rotate` again"):
        restart(pki)
    assert advance(pki.folder) == "switch"
    restart(pki)


def test_an_expired_ca_is_replaced(tmp_path):
    pki = Pki(tmp_path)
    pki.prepare(["127.0.0.1"], [], NOW - timedelta(days=4000))
    with pytest.raises(LaunchError, match="expired on .*; `faas certs rotate` three times") as refused:
        restart(pki)
    assert "\n" not in str(refused.value)
    assert [advance(tmp_path) for _ in range(3)] == ["begin", "switch", "finish"]
    restart(pki)
    assert agree(pki.server_context("apiserver"), trusting(pki.ca_file.read_text()))


def test_when_they_end(pki):
    found = expiries(pki.folder, NOW)
    assert {each.name for each in found} == {"apiserver", "apiserver-kubelet-client", "ca", "gateway", "node-node-1"}
    assert found[-1].name == "ca" and not any(each.warning() for each in found)
    later = {each.name: each.warning() for each in expiries(pki.folder, NOW + timedelta(days=350))}
    assert (
        later["apiserver"].startswith("the certificate apiserver expires in 1")
        and "`faas up` makes a new one" in later["apiserver"]
    )
    assert later["ca"] == ""
    far = {each.name: each.warning() for each in expiries(pki.folder, NOW + timedelta(days=3640))}
    assert "expires in" in far["ca"] and "`faas certs rotate`" in far["ca"] and "expired on" in far["apiserver"]
    (pki.folder / "apiserver.crt").write_text("nonsense")
    with pytest.raises(LaunchError, match="apiserver.crt can't be read") as refused:
        expiries(pki.folder, NOW)
    assert "\n" not in str(refused.value)


BROKEN = [
    ("ca.crt", b"nonsense", "ca.crt or ca.key can't be read"),
    ("ca.key", b"nonsense", "ca.crt or ca.key can't be read"),
    ("ca.key", b"", "ca.crt or ca.key can't be read"),
    ("apiserver.key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "apiserver.crt or apiserver.key can't be read"),
    ("tokens.json", b"{", "tokens.json can't be read"),
    ("tokens.json", b"[1]", "tokens.json isn't a table of tokens"),
    ("tokens.json", b'{"admin": ""}', "tokens.json isn't a table of tokens"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "data", "why"), BROKEN)
def test_files_that_are_broken(pki, name, data, why):
    (pki.folder / name).write_bytes(data)
    with pytest.raises(LaunchError, match="remove the folder to have new ones made") as refused:
        restart(Pki(pki.folder))
    assert why in str(refused.value)


@pytest.mark.parametrize("data", [b"nonsense", b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_broken_key_of_tokens(pki, data):
    pki.signing_key()
    (pki.folder / "service-account.key").write_bytes(data)
    with pytest.raises(LaunchError, match="service-account.key, which signs .*, can't be read.*remove it"):
        pki.signing_key()
