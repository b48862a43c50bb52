"""A Docker engine for tests: the one that answers, or one of our own with a small image made from this machine's files."""

from __future__ import annotations

import contextlib
import fcntl
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
from collections.abc import Iterator, Sequence
from pathlib import Path

import docker
import psutil

BASE_IMAGE = "faaslite/base:latest"
SHARED = "FAASLITE_TEST_DOCKER"
"""The engine that this session has started already."""
UNFILTERED = ("--iptables=false", "--ip6tables=false")
"""For an engine beside another: two that keep rules in one network namespace take each other's chains away."""
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


class OwnEngine:
    """An engine with folders of its own, which can go away and come back."""

    def __init__(self, folder: Path) -> None:
        self.url = f"unix://{folder}/docker.sock"
        self.folder = folder

    def start(self, *flags: str) -> None:
        folder = self.folder
        places = ["--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", "--pidfile", f"{folder}/pid"]
        command = ["dockerd", *places, "-H", self.url, "--bridge=none", "--storage-driver=overlay2", *flags]
        with (folder / "log").open("ab") as log:
            # No child of ours: it may be started again in a test, and outlives that test.
            subprocess.run(["setsid", "--fork", *command], stdout=log, stderr=subprocess.STDOUT, check=True)
        deadline = time.monotonic() + 60
        while not answers(self.url):
            if time.monotonic() > deadline:
                raise RuntimeError(f"dockerd didn't start:\n{(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """By its process id; without --live-restore its containers end with it."""
        try:
            process = psutil.Process(int((self.folder / "pid").read_text()))
        except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
            return
        process.terminate()
        try:
            process.wait(30)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(10)


@contextlib.contextmanager
def engine_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="faaslite-docker-"))
    try:
        yield folder
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    # An engine that restores its containers leaves its data root mounted.
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for each in reversed([each for each in mounts if each.startswith(f"{folder}/")]):
        subprocess.run(["umount", "--lazy", each], check=False)
    shutil.rmtree(folder)


@contextlib.contextmanager
def own_engine(session: Path) -> Iterator[str]:
    """An engine for the session; yields its URL.

    The session's processes, who all name the same folder, share it: the first one starts it, the last one stops it.
    """
    holders = session / "docker-engine"
    with _alone(session):
        folder, _, count = holders.read_text().partition("\n") if holders.exists() else ("", "", "0")
        engine = OwnEngine(Path(folder or tempfile.mkdtemp(prefix="faaslite-docker-")))
        if not folder:
            try:
                engine.start()
            except BaseException:
                engine.stop()
                _remove(engine.folder)
                raise
        holders.write_text(f"{engine.folder}\n{int(count) + 1}")
    os.environ[SHARED] = engine.url
    try:
        yield engine.url
    finally:
        os.environ.pop(SHARED, None)
        with _alone(session):
            others = int(holders.read_text().partition("\n")[2]) - 1
            if others:
                holders.write_text(f"{engine.folder}\n{others}")
            else:
                holders.unlink()
                engine.stop()
                _remove(engine.folder)


@contextlib.contextmanager
def _alone(session: Path) -> Iterator[None]:
    """While no other process of the session is here."""
    with (session / "docker-engine.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def ensure_image(url: str) -> None:
    """Make the base image where the engine hasn't got it: a shell, a few tools and this Python.

    Of two processes that do so at once the later one only names the same again.
    """
    client = docker.APIClient(url, timeout=120)
    try:
        if client.images(BASE_IMAGE):
            return
        repository, _, tag = BASE_IMAGE.partition(":")
        client.import_image_from_data(_archive(), repository=repository, tag=tag, changes=["ENV PATH=/bin"])
    finally:
        client.close()


def import_tools(url: str, image: str, *programs: str) -> None:
    """Make an image of a shell, a few tools and these programs of this machine's."""
    client = docker.APIClient(url, timeout=120)
    try:
        repository, _, tag = image.partition(":")
        client.import_image_from_data(
            _archive(programs, python=False), repository=repository, tag=tag or "latest", changes=["ENV PATH=/bin"]
        )
    finally:
        client.close()


def _archive(more: Sequence[str] = (), python: bool = True) -> bytes:
    made = io.BytesIO()
    programs = {f"bin/{each}": os.path.realpath(shutil.which(each) or "") for each in (*TOOLS, *more)}
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, path in programs.items():
            tar.add(path, name, recursive=False)
        linked = [*programs.values(), *(_add_python(tar) if python else ())]
        for path in _libraries(linked):
            tar.add(os.path.realpath(path), path.lstrip("/"), recursive=False)
        for name in ("tmp", "dev", "proc", "sys", "etc", "run"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(folder)
    return made.getvalue()


def _add_python(tar: tarfile.TarFile) -> list[str]:
    """This Python with its standard library: what of it is linked to libraries."""
    python = os.path.realpath(sys.executable)
    stdlib = Path(sysconfig.get_path("stdlib"))
    tar.add(python, python.lstrip("/"), recursive=False)
    link = tarfile.TarInfo("bin/python3")
    link.type, link.linkname = tarfile.SYMTYPE, python
    tar.addfile(link)
    tar.add(stdlib, str(stdlib).lstrip("/"), filter=lambda each: None if Path(each.name).name in LEFT_OUT else each)
    return [python, *map(str, stdlib.glob("lib-dynload/*.so"))]


def _libraries(programs: list[str]) -> set[str]:
    listed = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=True).stdout
    found = set(re.findall(r"(/\S+)\s+\(0x", listed))
    # Wheels made for an older C library name its former parts.
    folder = Path(next(each for each in found if "/libc.so." in each)).parent
    parts = (folder / each for each in ("libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1"))
    return found | {str(each) for each in parts if each.exists()}


def free_subnet(worker: str = "") -> str:
    """A /28 that no interface of this machine has: test traffic stays on the bridge that is made of it.

    Two workers of a session (gw0, gw1, ...) look in different ranges, as they may look at once.
    """
    routes = subprocess.run(["ip", "-4", "route"], capture_output=True, text=True, check=True).stdout
    first = 200 + int(worker.removeprefix("gw") or "0") % 5 * 10
    for third in range(first, first + 10):
        if f"10.213.{third}." not in routes:
            with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.bind((f"10.213.{third}.1", 0))
                continue
            return f"10.213.{third}.0/28"
    raise RuntimeError("no free subnet for the tests' bridge")
