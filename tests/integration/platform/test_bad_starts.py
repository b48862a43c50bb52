"""`faas up` where it can't come up, requests that make no sense, and clients that can't reach it."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import signal
import socket
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

NOISE_ALLOWED = r"is left out: .* it never fires"
OK = "def handle(event, context):\n    return str(len(event.body))\n"


@pytest.fixture(scope="module")
def spare(platforms: Any) -> Any:
    """A data dir for starts that fail."""
    return platforms()


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


class TestUp:
    FREE = ("--detach", "--runtime", "process", "--api-port", "0", "--gateway-port", "0")

    def test_ports_in_use(self, spare: Any, taken: int) -> None:
        for flag, what in (("--api-port", "the API server"), ("--gateway-port", "the gateway")):
            done = spare.faas("up", *self.FREE, flag, str(taken), check=False)
            done.fails(f"{what} can't listen on 127.0.0.1:{taken}: the port is in use", flag)
        assert not spare.leftovers()

    def test_flags_that_make_no_sense(self, spare: Any) -> None:
        spare.faas("up", *self.FREE, "--runtime", "lambda", check=False).fails("--runtime", "process")
        spare.faas("up", *self.FREE, "--nodes", "0", check=False).fails("--nodes")
        spare.faas("up", *self.FREE, "--listen", "here", check=False).fails("'here' is not an IP address")
        spare.faas("up", *self.FREE, "--listen", "203.0.113.7", check=False).fails("no such address")
        refused = spare.faas("up", *self.FREE, "--api-port", "99999", check=False)
        assert refused.code == 2 and "Invalid value for '--api-port'" in refused.err, refused
        assert not spare.leftovers()

    def test_an_audit_policy_that_is_none(self, spare: Any, tmp_path: Path) -> None:
        policy = tmp_path / "policy.yaml"
        spare.faas("up", *self.FREE, "--audit-policy", str(policy), check=False).fails("policy.yaml: No such file")
        policy.write_text("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: All}]\n")
        spare.faas("up", *self.FREE, "--audit-policy", str(policy), check=False).fails(
            "rules[0].level: 'All' is no level"
        )
        assert not spare.leftovers()

    def test_a_data_dir_of_another_user(self, spare: Any, short_path: Path) -> None:
        if os.geteuid():
            pytest.skip("only root can make a folder of another user")
        theirs = short_path / "theirs"
        theirs.mkdir()
        os.chown(theirs, 12345, 12345)
        spare.faas("up", *self.FREE, "--data-dir", str(theirs), check=False).fails("belongs to another user")

    def test_a_data_dir_that_can_not_be_written_or_is_full(self, spare: Any, tmp_path: Path) -> None:
        if os.geteuid():
            pytest.skip("only root can mount")
        place = Path("/tmp") / f"fp-mount-{os.getpid()}"
        place.mkdir()
        try:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "none", str(place)], check=True)
            spare.faas("up", *self.FREE, "--data-dir", str(place), check=False).fails("Read-only file system")
            subprocess.run(["umount", str(place)], check=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(place)], check=True)
            spare.faas("up", *self.FREE, "--data-dir", str(place), check=False).fails("No space left on device")
        finally:
            subprocess.run(["umount", str(place)], check=True)
            place.rmdir()

    def test_a_data_dir_that_is_none(self, spare: Any, short_path: Path) -> None:
        file = short_path / "file"
        file.write_text("")
        spare.faas("up", *self.FREE, "--data-dir", str(file), check=False).fails("can't be used")
        spare.faas("up", *self.FREE, "--data-dir", "/tmp/" + "x" * 150, check=False).fails("too long a path")
        spoiled = Path("/tmp") / f"fp-spoiled-{os.getpid()}"
        spoiled.mkdir()
        try:
            (spoiled / "cluster.json").write_text("{")
            spare.faas("up", *self.FREE, "--data-dir", str(spoiled), check=False).fails("cluster.json can't be read")
            (spoiled / "cluster.json").unlink()
            (spoiled / "state.db").write_bytes(b"no database" * 100)
            spare.faas("up", *self.FREE, "--data-dir", str(spoiled), check=False).fails("state.db")
        finally:
            subprocess.run(["rm", "-rf", str(spoiled)], check=True)

    def test_in_the_foreground_ctrl_c_stops_everything(self, platforms: Any, wait_until: Callable[..., Any]) -> None:
        own = platforms()
        flags = [each for each in self.FREE if each != "--detach"]
        process = own.start("up", *flags)
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("Gateway"):
                break
        own.learn()
        own.deploy("f", OK)
        own.remember()
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=30)
        assert time.monotonic() - began < 15
        assert process.returncode in (0, 130) and "Traceback" not in complaint, complaint
        own.gone()
        assert not own.noise()

    def test_two_clusters_live_side_by_side(self, platforms: Any, platform: Any) -> None:
        own = platforms()
        own.up()
        for each, name in ((own, "theirs"), (platform, "ours")):
            each.deploy("same", f'def handle(event, context):\n    return "{name}"\n', "--min", "2")
        assert own.call("/function/same").body == b"theirs" and platform.call("/function/same").body == b"ours"
        own.down()
        assert platform.call("/function/same").body == b"ours"

    def test_on_every_address(self, platforms: Any) -> None:
        """The gateway on the wildcard must not take the port from the Pods."""
        own = platforms("--runtime", "process", "--api-port", "0", "--gateway-port", "0", "--listen", "0.0.0.0")
        own.up()
        own.deploy("open", OK)
        assert own.call("/function/open").body == b"0"
        own.down()


class TestRunAlone:
    def test_components_run_one_by_one(self, platforms: Any, wait_until: Callable[..., Any]) -> None:
        own = platforms()
        own.up()
        own.deploy("alone", OK)
        own.faas("run", "jobs", check=False).fails("already up")
        own.down()
        own.faas("run", "nonsense", check=False).fails("there is no component 'nonsense'", "core, jobs")
        parts = ["core", "jobs", "sandboxer-1", "node-1", "gateway-1"]
        running = []
        try:
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            running.extend(own.start("run", each, **quiet) for each in parts)

            def answers() -> bool:
                try:
                    return bool(own.call("/function/alone", b"four").body == b"4")
                except OSError:
                    return False

            wait_until("an answer", answers, 60)
            own.faas("up", "--detach", check=False).fails("already up")
        finally:
            for each in reversed(running):
                each.send_signal(signal.SIGINT)
                each.wait(30)
        own.gone()


class TestRequests:
    @pytest.fixture(scope="class")
    @classmethod
    def length(cls, platform: Any) -> Any:
        platform.deploy("length", OK)
        return platform

    @pytest.mark.parametrize(
        ("method", "path", "status", "error"),
        [
            ("GET", "/function/nobody", 404, "FunctionNotFound"),
            ("GET", "/function/length.nowhere", 404, "FunctionNotFound"),
            ("GET", "/function/", 404, ""),
            ("GET", "/nothing", 404, "NotFound"),
            ("GET", "/function/%00", 404, ""),
            ("POST", "/async-function/nobody", 404, ""),
            ("GET", "/system/nothing", 404, ""),
            ("GET", "/system/calls", 401, ""),
        ],
    )
    def test_what_is_not_there(self, length: Any, method: str, path: str, status: int, error: str) -> None:
        reply = length.call(path, method=method)
        assert reply.status == status, reply
        assert reply.headers["content-type"].startswith("application/json") and reply.json["error"]
        assert reply.json["message"]
        if error:
            assert reply.json["error"] == error

    def test_a_body_over_the_limit(self, length: Any) -> None:
        """Refused by what it says of its length, before a byte of it is read."""
        with socket.create_connection(tuple_of(length.url), timeout=20) as connection:
            connection.sendall(
                b"POST /function/length HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\nConnection: close\r\n\r\n"
            )
            reply = connection.makefile("rb").read()
        assert reply.startswith(b"HTTP/1.1 413 ") and b'"PayloadTooLarge"' in reply
        assert length.call("/async-function/length", b"x" * (2 << 20), method="POST").status == 413
        assert length.call("/function/length", b"x" * 3_000_000).body == b"3000000"

    def test_garbage_on_the_wire(self, length: Any) -> None:
        for data in (b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"A" * 100_000):
            with socket.create_connection(tuple_of(length.url), timeout=20) as connection:
                try:
                    connection.sendall(data)
                    connection.shutdown(socket.SHUT_WR)
                    reply = connection.makefile("rb").read()
                except ConnectionError:
                    continue
            assert not reply or reply.startswith((b"HTTP/1.1 4", b"HTTP/1.1 505")), reply
        assert length.call("/function/length").status == 200

    def test_packages_that_are_none(self, length: Any) -> None:
        def put(data: bytes, digest: str = "", token: str = length.token) -> Any:
            name = digest or "sha256:" + hashlib.sha256(data).hexdigest()
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            return length.call(f"/system/packages/{name}?namespace=default", data, method="PUT", **headers)

        good = archive({"handler.py": OK})
        assert put(good, token="").status == 401
        assert put(good, token="wrong").status == 401
        wrong = put(good, "sha256:" + "0" * 64)
        assert wrong.status == 400 and "digest" in wrong.json["message"]
        assert put(good, "md5:abc").status in (400, 404)
        assert put(good, "sha256:..%2F..%2Fstate.db").status in (400, 404)
        assert put(good).status in (200, 201) and put(good).status == 200

    @pytest.mark.parametrize(
        ("sort", "said"),
        [("up", ".."), ("absolute", "/"), ("link", "link"), ("device", "device"), ("no-gzip", ""), ("bomb", "")],
    )
    def test_archives_that_want_out(self, length: Any, sort: str, said: str) -> None:
        """Uploaded past the command, by hand: the store may take bytes it doesn't look into, but the node never unpacks them."""
        data = bad_archive(sort)
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        reply = length.call(
            f"/system/packages/{digest}?namespace=default", data, method="PUT", Authorization=f"Bearer {length.token}"
        )
        if reply.status not in (200, 201):
            assert reply.status in (400, 413) and reply.json["message"]
            return
        document = {
            "metadata": {"name": f"bad-{sort}"},
            "spec": {"handler": "handler:handle", "package": {"digest": digest}},
        }
        assert length.kube("POST", "/apis/faaslite.dev/v1/namespaces/default/functions", document).status == 201
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            found = length.call(f"/function/bad-{sort}", timeout=60)
            if found.status == 503 and said in found.json["message"] and "ready instance" not in found.json["message"]:
                break
            time.sleep(0.2)
        assert found.status == 503 and said in found.json["message"], found
        assert not Path("/tmp/faaslite-escaped").exists() and not list(length.home.rglob("*escaped*"))
        length.faas("delete", f"bad-{sort}")
        assert length.call("/function/length").status == 200

    def test_a_digest_that_nobody_uploaded(self, length: Any) -> None:
        spec = {"handler": "handler:handle", "package": {"digest": "sha256:" + "1" * 64}}
        length.kube(
            "POST", "/apis/faaslite.dev/v1/namespaces/default/functions", {"metadata": {"name": "ghost"}, "spec": spec}
        )
        deadline = time.monotonic() + 20
        while "package store has no" not in (found := length.call("/function/ghost", timeout=60)).body.decode():
            assert time.monotonic() < deadline, found
            time.sleep(0.2)
        assert found.status == 503 and "deploy the function again" in found.json["message"]
        length.faas("delete", "ghost")

    def test_functions_that_the_command_would_not_have_sent(self, length: Any) -> None:
        """Past the command's checks: refused by the API with the field's path, or a condition of the Function says why."""
        path = "/apis/faaslite.dev/v1/namespaces/default/functions"
        refused = length.kube("POST", path, {"metadata": {"name": "Bad_Name"}, "spec": {}})
        assert refused.status == 422 and "metadata.name" in refused.json["message"]
        refused = length.kube("POST", path, {"metadata": {"name": "typed"}, "spec": {"concurrency": "many"}})
        assert refused.status == 422 and "spec.concurrency" in refused.json["message"]
        taken = length.kube(
            "POST", path, {"metadata": {"name": "never"}, "spec": {"cron": [{"schedule": "0 0 30 2 *"}]}}
        )
        if taken.status == 201:
            deadline = time.monotonic() + 10
            while "0 0 30 2 *" not in length.faas("describe", "never").out.split("Ready:")[-1]:
                assert time.monotonic() < deadline, length.faas("describe", "never").out
                time.sleep(0.1)
            length.faas("delete", "never")
        else:
            assert taken.status == 422


class TestClients:
    def test_kubeconfigs_that_are_none(self, platform: Any, tmp_path: Path) -> None:
        environment = platform.environment
        spoiled = tmp_path / "kubeconfig"
        for text, part in (("{", "can't read the kubeconfig"), ("a: 1\n", "kubeconfig"), ("", "kubeconfig")):
            spoiled.write_text(text)
            platform.environment = {**environment, "FAASLITE_KUBECONFIG": str(spoiled)}
            try:
                done = platform.faas("list", check=False)
            finally:
                platform.environment = environment
            assert done.code in (1, 2, 4) and "Traceback" not in done.err, done
            assert len([line for line in done.err.splitlines() if line.startswith("error:")]) == 1
            assert part in done.err, done

    def test_a_wrong_token(self, platform: Any, tmp_path: Path) -> None:
        text = (platform.home / "kubeconfig").read_text().replace(platform.token, "wrong")
        (tmp_path / "kubeconfig").write_text(text)
        environment = platform.environment
        platform.environment = {**environment, "FAASLITE_KUBECONFIG": str(tmp_path / "kubeconfig")}
        try:
            platform.faas("list", check=False).fails("nauthorized")
        finally:
            platform.environment = environment

    def test_a_home_without_a_cluster(self, platform: Any, tmp_path: Path) -> None:
        environment = platform.environment
        platform.environment = {**environment, "FAASLITE_HOME": str(tmp_path)}
        try:
            for command in (["list"], ["status"], ["down"], ["invoke", "x"], ["logs", "x"], ["kubeconfig"]):
                platform.faas(*command, check=False).fails("faas up", code=4)
        finally:
            platform.environment = environment


def tuple_of(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


def archive(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def bad_archive(sort: str) -> bytes:
    if sort == "up":
        return archive({"handler.py": OK, "../../../faaslite-escaped": "x"})
    if sort == "absolute":
        return archive({"handler.py": OK, "/tmp/faaslite-escaped": "x"})
    if sort == "no-gzip":
        return b"this is no archive at all"
    if sort == "bomb":
        return gzip.compress(b"\0" * (1 << 20)) + b"trailing garbage"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        info = tarfile.TarInfo("escaped")
        info.type = tarfile.SYMTYPE if sort == "link" else tarfile.CHRTYPE
        info.linkname = "/etc/passwd"
        tar.addfile(info)
        inside = tarfile.TarInfo("handler.py")
        inside.size = len(OK)
        tar.addfile(inside, io.BytesIO(OK.encode()))
    return buffer.getvalue()
