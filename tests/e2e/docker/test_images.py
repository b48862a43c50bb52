"""Images: the base made of Debian's packages, and what `faas images` says."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import docker
import pytest

pytestmark = pytest.mark.docker
ROOT = Path(__file__).parents[3]
TAG = "faaslite-test/base:built"


def remove(url: str, *images: str) -> None:
    client = docker.APIClient(url, timeout=60)
    try:
        for each in images:
            if client.images(each):
                client.remove_image(each, force=True)
    finally:
        client.close()


@pytest.fixture
def environment(docker_url: str) -> dict[str, str]:
    return {**os.environ, "DOCKER_HOST": docker_url}


def run(environment: dict[str, str], *command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)


@pytest.mark.root
@pytest.mark.timeout(600)
def test_a_base_of_debians_packages_is_one_for_functions(docker_url: str, environment: dict[str, str], needs: Any) -> None:  # fmt: skip
    needs(shutil.which("mmdebstrap"), "mmdebstrap", "apt-get install mmdebstrap")
    needs(shutil.which("docker"), "docker", "apt-get install docker.io")
    needs(os.geteuid() == 0, "root", "mmdebstrap is slow and fails in many containers without it")
    try:
        done = run(environment, "bash", str(ROOT / "runtime-images" / "base" / "build.sh"), TAG, timeout=500)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == TAG
        probe = "import ssl, sys, asyncio; print(sys.version_info >= (3, 11), ssl.create_default_context().get_ca_certs() != [])"
        said = run(environment, "docker", "run", "--rm", "--network=none", TAG, "python3", "-c", probe)
        assert said.stdout.split() == ["True", "True"], said.stderr
    finally:
        remove(docker_url, TAG)


def test_a_base_that_isnt_there_or_has_no_python_is_refused(docker_url: str, environment: dict[str, str], faas_command: str) -> None:  # fmt: skip
    done = run(environment, faas_command, "images", "build", "--base", "faaslite-test/none")
    assert done.returncode == 1 and "no image faaslite-test/none" in done.stderr and "build.sh" in done.stderr
    client = docker.APIClient(docker_url, timeout=60)
    try:
        client.import_image_from_data(_empty(), repository="faaslite-test/empty", tag="latest")
    finally:
        client.close()
    try:
        done = run(environment, faas_command, "images", "build", "--base", "faaslite-test/empty")
        assert done.returncode == 1 and "it has no python3 that runs" in done.stderr, done.stderr
        assert done.stderr.splitlines()[-1].startswith("error: ") and "Traceback" not in done.stderr
    finally:
        remove(docker_url, "faaslite-test/empty")


def test_images_are_listed(python_image: str, environment: dict[str, str], faas_command: str) -> None:
    done = run(environment, faas_command, "images", "list")
    assert done.returncode == 0 and "faaslite/python:latest" in done.stdout


def test_builds_bring_pip_along_and_say_what_they_cannot_get(
    python_image: str, environment: dict[str, str], needs: Any
) -> None:
    """The base of these tests has no pip, and the container no network."""
    needs(shutil.which("docker"), "docker", "apt-get install docker.io")
    command = [
        "docker",
        "run",
        "--rm",
        "--network=none",
        "--read-only",
        "--tmpfs",
        "/tmp:mode=1777",
        "-e",
        "FAASLITE_REQUIREMENTS=six",
        "-e",
        "PIP_RETRIES=0",
    ]
    done = run(environment, *command, "-e", "FAASLITE_BUILD=/tmp", "faaslite/python", "faaslite-build")
    assert done.returncode == 1, done.stderr
    said = "error: spec.package.requirements: Could not find a version that satisfies the requirement six"
    assert done.stdout.splitlines()[-1].startswith(said), done.stdout


def test_no_engine_is_said_plainly(environment: dict[str, str], faas_command: str, tmp_path: Path) -> None:
    done = run({**environment, "DOCKER_HOST": f"unix://{tmp_path}/none"}, faas_command, "images", "list")
    assert done.returncode == 4 and "no Docker engine answers" in done.stderr


def _empty() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        folder = tarfile.TarInfo("etc")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder)
    return made.getvalue()
