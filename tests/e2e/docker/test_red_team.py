"""A hostile team on a Docker node: what its code comes to, beside what docs/security.md claims; and what its container really is."""

from __future__ import annotations

import runpy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.docker

_red: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[2] / "red_team" / "campaign.py"))


@pytest.fixture(scope="module")
def campaign(docker_platforms: Callable[..., Any], python_image: str, wait_until: Callable[..., Any]) -> Iterator[Any]:
    platform = docker_platforms(python_image)
    platform.up()
    found = _red["Campaign"](platform, wait_until)
    found.prepare()
    yield found
    platform.down()


@pytest.mark.timeout(300)
def test_from_within_a_pod(campaign: Any) -> None:
    _red["check"](_red["LEVELS"][2], campaign.run())


@pytest.mark.kubectl
@pytest.mark.timeout(240)
def test_by_a_command_in_a_pod(campaign: Any, needs: Any) -> None:
    needs(shutil.which("kubectl"), "kubectl", "install it from https://kubernetes.io/docs/tasks/tools/")
    _red["check"](_red["LEVELS"][2], campaign.run_by_exec(), without="-without-end")


def test_what_the_container_of_a_function_is(campaign: Any) -> None:
    """As the engine has it, whether it waited for its Pod or was made for it."""
    platform = campaign.platform
    ids = [
        pod["status"]["containerStatuses"][0]["containerID"].partition("://")[2]
        for name in ("breach", "glutton")
        for pod in platform.pods(name, _red["ATTACKERS"])
    ]
    assert ids
    for each in ids:
        inspected = platform.docker.inspect_container(each)
        host = inspected["HostConfig"]
        assert inspected["Config"]["User"] == "65532:65532"
        assert host["ReadonlyRootfs"] is True and host["Privileged"] is False and host["PidsLimit"] == 1024
        assert host["CapDrop"] == ["ALL"] and not host["CapAdd"] and host["SecurityOpt"][0] == "no-new-privileges"
        assert host["SecurityOpt"][1].startswith('seccomp={"defaultAction":"SCMP_ACT_ERRNO"')
        assert list(host["Tmpfs"]) == ["/tmp"] and "size=536870912" in host["Tmpfs"]["/tmp"]
        assert host["PidMode"] == "" and host["UsernsMode"] == "" and host["NetworkMode"] != "host"
        sources = [mount["Source"] for mount in inspected["Mounts"]]
        assert not any("docker.sock" in source or source.endswith("/pki") for source in sources), sources
