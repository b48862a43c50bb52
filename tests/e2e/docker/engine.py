"""A Docker engine for tests: the one that answers, or one of our own with a small image made from this machine's files."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import docker

BASE_IMAGE = "faaslite/base:latest"
SHARED = "FAASLITE_TEST_DOCKER"
"""The engine that this session has started already."""
TOOLS = ("sh", "sleep", "cat", "mkdir", "id")
LEFT_OUT = {"test", "tests", "idlelib", "lib2to3", "tkinter", "turtledemo", "ensurepip", "__pycache__", "site-packages"}


def answers(url: str) -> bool:
    """Asked by hand: the SDK leaves its socket open where nobody listens."""
    if not url.startswith("unix://"):
        return bool(url)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(5)
        try:
            connection.connect(url.removeprefix("unix://"))
            connection.sendall(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")
            return b" 200 " in connection.recv(64)
        except OSError:
            return False


def found_engine() -> str:
    """The URL of an engine that answers already, or ""."""
    for url in (os.environ.get(SHARED, ""), os.environ.get("DOCKER_HOST", ""), "unix:///var/run/docker.sock"):
        if url and answers(url):
            return url
    return ""


def why_not() -> str:
    """Why no engine of our own can be started, or ""."""
    if os.geteuid() != 0:
        return "no Docker engine answers, and one can be started by root only"
    if not shutil.which("dockerd"):
        return "no Docker engine answers, and there is no dockerd"
    return ""


@contextlib.contextmanager
def own_engine() -> Iterator[str]:
    """An engine with folders of its own, stopped by its process id; yields its URL."""
    with tempfile.TemporaryDirectory(prefix="faaslite-docker-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        url = f"unix://{folder}/docker.sock"
        command = [
            "dockerd",
            "--data-root",
            f"{folder}/data",
            "--exec-root",
            f"{folder}/exec",
            "--pidfile",
            f"{folder}/pid",
        ]
        command += ["-H", url, "--bridge=none", "--storage-driver=overlay2"]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            deadline = time.monotonic() + 60
            while not answers(url):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"dockerd didn't start:\n{(folder / 'log').read_text()[-2000:]}")
                time.sleep(0.05)
            os.environ[SHARED] = url
            yield url
        finally:
            os.environ.pop(SHARED, None)
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def ensure_image(url: str) -> None:
    """Make the base image where the engine hasn't got it: a shell, a few tools and this Python."""
    client = docker.APIClient(url, timeout=120)
    try:
        if client.images(BASE_IMAGE):
            return
        repository, _, tag = BASE_IMAGE.partition(":")
        client.import_image_from_data(_archive(), repository=repository, tag=tag, changes=["ENV PATH=/bin"])
    finally:
        client.close()


def _archive() -> bytes:
    made = io.BytesIO()
    programs = {f"bin/{each}": os.path.realpath(shutil.which(each) or "") for each in TOOLS}
    python = os.path.realpath(sys.executable)
    stdlib = Path(sysconfig.get_path("stdlib"))
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, path in programs.items():
            tar.add(path, name, recursive=False)
        tar.add(python, python.lstrip("/"), recursive=False)
        link = tarfile.TarInfo("bin/python3")
        link.type, link.linkname = tarfile.SYMTYPE, python
        tar.addfile(link)
        tar.add(stdlib, str(stdlib).lstrip("/"), filter=lambda each: None if Path(each.name).name in LEFT_OUT else each)
        for path in _libraries([*programs.values(), python, *map(str, stdlib.glob("lib-dynload/binascii.*"))]):
            tar.add(os.path.realpath(path), path.lstrip("/"), recursive=False)
        for name in ("tmp", "dev", "proc", "sys", "etc", "run"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(folder)
    return made.getvalue()


def _libraries(programs: list[str]) -> set[str]:
    found = set()
    for each in programs:
        listed = subprocess.run(["ldd", each], capture_output=True, text=True, check=True).stdout
        found |= set(re.findall(r"(/\S+)\s+\(0x", listed))
    return found


def free_subnet() -> str:
    """A /28 that no interface of this machine has: test traffic stays on the bridge that is made of it."""
    routes = subprocess.run(["ip", "-4", "route"], capture_output=True, text=True, check=True).stdout
    for third in range(200, 255):
        if f"10.213.{third}." not in routes:
            with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.bind((f"10.213.{third}.1", 0))
                continue
            return f"10.213.{third}.0/28"
    raise RuntimeError("no free subnet for the tests' bridge")
