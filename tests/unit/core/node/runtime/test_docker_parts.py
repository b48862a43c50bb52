"""The Docker driver's pure parts: bodies, times, log files, image names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from core.node.runtime.base import ContainerSpec, Mount, SandboxSpec
from core.node.runtime.docker_logs import LogFile, copy_logs, seconds
from core.node.runtime.docker_seccomp import profile_text
from core.node.runtime.docker_spec import container_body, normal_image, sandbox_labels, when


def body(pause: str = "", **options: Any) -> dict[str, Any]:
    sandbox = SandboxSpec("u", "p", "ns", "/logs", hostname="p", dns_servers=("10.0.0.10",), dns_searches=("svc",))
    spec = ContainerSpec("main", "faaslite/python", **options)
    labels = sandbox_labels("n", sandbox, "10.1.0.2")
    return container_body(
        sandbox, spec, labels, network="net", address="10.1.0.2", pause=pause, notify="/n", termination="/t"
    )


@pytest.mark.parametrize(
    ("image", "full"),
    [
        ("faaslite/python", "faaslite/python:latest"),
        ("a:1", "a:1"),
        ("host:5000/a", "host:5000/a:latest"),
        ("a@sha256:0", "a@sha256:0"),
    ],
)
def test_images_have_a_tag(image: str, full: str) -> None:
    assert normal_image(image) == full


def test_limits_and_security() -> None:
    found = body(cpu=0.5, cpu_request=0.25, memory=1 << 26, user=1000, group=1001, read_only_root=True)
    host = found["HostConfig"]
    assert (host["NanoCpus"], host["CpuShares"], host["Memory"], host["MemorySwap"]) == (
        500_000_000,
        256,
        1 << 26,
        1 << 26,
    )
    assert (host["ReadonlyRootfs"], host["CapDrop"]) == (True, ["ALL"])
    assert host["SecurityOpt"] == ["no-new-privileges", f"seccomp={profile_text()}"]
    assert found["User"] == "1000:1001"
    assert "CapDrop" not in body()["HostConfig"]
    assert body(no_capabilities=True)["HostConfig"]["CapDrop"] == ["ALL"]


def test_a_folder_in_memory_is_bounded() -> None:
    host = body(mounts=(Mount("", "/tmp", scratch=1 << 20), Mount("/h", "/x")))["HostConfig"]
    assert "size=1048576" in host["Tmpfs"]["/tmp"] and "nosuid" in host["Tmpfs"]["/tmp"]
    assert [each["Target"] for each in host["Mounts"] if each["Source"] == "/h"] == ["/x"]
    assert all(each["Target"] != "/tmp" for each in host["Mounts"])


def test_a_solitary_container_has_the_pods_network() -> None:
    found = body()
    assert found["NetworkingConfig"]["EndpointsConfig"]["net"]["IPAMConfig"]["IPv4Address"] == "10.1.0.2"
    assert found["HostConfig"]["Dns"] == ["10.0.0.10"]
    assert found["Hostname"] == "p"


def test_others_share_that_of_the_pause_container() -> None:
    found = body(pause="abc")
    assert found["HostConfig"]["NetworkMode"] == "container:abc"
    assert "NetworkingConfig" not in found and "Hostname" not in found


def test_mounts_and_readiness_socket() -> None:
    found = body(mounts=(Mount("/h", "/c", True),), env={"A": "1"})
    mounts = {each["Target"]: (each["Source"], each.get("ReadOnly", False)) for each in found["HostConfig"]["Mounts"]}
    assert mounts == {"/c": ("/h", True), "/run/faaslite": ("/n", True), "/dev/termination-log": ("/t", False)}
    assert found["Env"] == ["A=1", "NOTIFY_SOCKET=/run/faaslite/notify"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0001-01-01T00:00:00Z", 0.0),
        ("", 0.0),
        ("1970-01-01T00:00:01Z", 1.0),
        ("1970-01-01T00:00:01.123456789Z", 1.123456),
        ("1970-01-01T01:00:01.5+01:00", 1.5),
    ],
)
def test_times(text: str, value: float) -> None:
    assert when(text) == value


def test_seconds_keep_nanoseconds() -> None:
    assert seconds("1970-01-01T00:00:01.123456789Z") == "1.123456789"
    assert seconds("") == "0"


async def feed(*chunks: tuple[str, bytes]) -> AsyncIterator[tuple[str, bytes]]:
    for each in chunks:
        yield each


async def test_logs_go_on_without_loss_or_repeat(tmp_path: Path) -> None:
    path = tmp_path / "main" / "0.log"
    chunks = [
        ("stdout", b"T1 a\n"),
        ("stderr", b"T2 b\n"),
        ("stdout", b"T2 c\n"),
        ("stdout", b"T2 d\n"),
        ("stdout", b"T3 long"),
    ]
    first = LogFile(path)
    await copy_logs(feed(*chunks[:3]), first)
    first.close()
    second = LogFile(path)
    assert (second.since, second.seen) == ("T2", 2)
    await copy_logs(feed(*chunks[1:]), second)  # the engine begins with all lines of that time
    second.close()
    assert path.read_text().splitlines() == [
        "T1 stdout F a",
        "T2 stderr F b",
        "T2 stdout F c",
        "T2 stdout F d",
        "T3 stdout P long",
    ]
