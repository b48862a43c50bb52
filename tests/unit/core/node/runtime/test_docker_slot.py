"""The journal of adoptions, folders of waiting containers, and the rules between bridges."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from core.node.runtime.docker_journal import Adoption
from core.node.runtime.docker_network import rules
from core.node.runtime.docker_slot import control_socket, prepare_folder, remove_folder
from core.node.runtime.sandboxer.isolation import attach, make_shared


def test_the_journal_is_read_back_and_is_its_owners_alone(tmp_path: Path) -> None:
    assert Adoption.load(tmp_path) is None
    made = Adoption({"faaslite.dev/pod-uid": "u"}, {"PASSWORD": "hush\n"}, 1700000000.5)
    made.save(tmp_path)
    assert Adoption.load(tmp_path) == made
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_later_adoption_takes_the_place_of_an_earlier(tmp_path: Path) -> None:
    Adoption({"a": "1"}, {"LONG": "x" * 1000}, 1.0).save(tmp_path)
    Adoption({"a": "2"}, {}, 2.0).save(tmp_path)
    assert Adoption.load(tmp_path) == Adoption({"a": "2"}, {}, 2.0)


def test_a_container_reaches_its_control_socket_whatever_the_length_of_the_path(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30) / "slot"
    prepare_folder(folder)
    with control_socket(folder) as listener, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as waiting:
        handle = os.open(folder / "notify", os.O_PATH)
        try:
            waiting.connect(f"/proc/self/fd/{handle}/control")
        finally:
            os.close(handle)
        waiting.send(b"{}")
        control, _ = listener.accept()
        with control:
            assert control.recv(100) == b"{}"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_removal_stops_at_what_was_attached(tmp_path: Path) -> None:
    package, root = tmp_path / "package", tmp_path / "slots"
    package.mkdir()
    (package / "app.py").write_text("x")
    root.mkdir()
    make_shared(str(root))
    folder = root / "one"
    prepare_folder(folder)
    (folder / "var" / "package").mkdir()
    attach(str(package), str(folder / "var" / "package"), False)
    assert (folder / "var" / "package" / "app.py").exists()
    remove_folder(root)
    assert not root.exists()
    assert (package / "app.py").read_text() == "x"
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def test_rules_between_bridges_bear_the_clusters_mark() -> None:
    (let, hide) = rules("10.244.0.0/16", "faaslite-abc")
    assert let[:2] == ("filter", "DOCKER-USER") and let[2][:4] == ["-s", "10.244.0.0/16", "-d", "10.244.0.0/16"]
    assert hide[:2] == ("nat", "POSTROUTING") and hide[2][:5] == ["-s", "10.244.0.0/16", "!", "-d", "10.244.0.0/16"]
    assert all("faaslite-abc" in rule for _, _, rule in (let, hide))
