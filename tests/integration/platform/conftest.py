"""A whole platform on the process runtime: real `faas` subprocesses, one cluster a module, and nothing left of it afterwards.

What a test module gets is what a person at a terminal has: the command, HTTP, and the files of the data dir.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import runpy
import shutil
import ssl
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
import yaml

ROOT = Path(__file__).parents[3]
FAAS = Path(sys.executable).with_name("faas")
NOISE = re.compile(r"Traceback|WARNING|ERROR|CRITICAL|Exception|Task was destroyed|never awaited|never retrieved")
NOBODY = 65534
_GONE_SECONDS = 10.0
Commands: Any = runpy.run_path(str(Path(__file__).with_name("forked.py")))["Commands"]
_EXECUTED = {"up", "down", "run", "dev", "exec", "login", "images"}
"""Commands whose processes are what a test may be about."""
T = TypeVar("T")


def until(what: str, holds: Callable[[], T], seconds: float = 30.0) -> T:
    """Ask the outside world, which can't tell us, until the answer is true; that answer."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come true within {seconds:.0f} s")
        time.sleep(0.05)
    return found


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Done:
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def fails(self, *parts: str, code: int = 1) -> None:
        """It ended with that code and exactly one line of error that has these parts."""
        lines = [line for line in self.err.splitlines() if line.startswith("error:")]
        assert "Traceback" not in self.err + self.out, self.err
        assert self.code == code and len(lines) == 1, (self.code, self.err)
        assert self.err.splitlines()[-1] == lines[0], f"the error is not the last line: {self.err}"
        for part in parts:
            assert part in lines[0], f"{part!r} is not in {lines[0]!r}"


class Platform:
    """One data dir, and what can be done with it from outside."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.home = folder / "home"
        self.scratch = folder / "tmp"
        self.sources = folder / "src"
        for each in (self.scratch, self.sources):
            each.mkdir()
        self.flags = flags
        self.command = [str(FAAS)]
        self.forked: Any = None
        """What runs commands in place of their program, where that is all the same (`forked.py`)."""
        self.url = self.api = ""
        self.environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("FAASLITE_", "KUBE", "PYTHON"))
        }
        self.environment |= {"FAASLITE_HOME": str(self.home), "TMPDIR": str(self.scratch)}
        self._seen: dict[int, float] = {}

    # The command

    def faas(self, *arguments: str, check: bool = True, timeout: float = 90.0, **more: Any) -> Done:
        if self.forked and self.command == [str(FAAS)] and arguments[0] not in _EXECUTED and not more.keys() - {"env"}:
            done = self.forked.run(arguments, timeout=timeout, **{"env": self.environment, **more})
        else:
            done = subprocess.run(
                [*self.command, *arguments],
                capture_output=True,
                text=True,
                timeout=timeout,
                **{"env": self.environment, **more},
            )
        if check and done.returncode:
            pytest.fail(f"`faas {' '.join(arguments)}` ended with {done.returncode}: {done.stderr}{done.stdout}")
        return Done(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str, **more: Any) -> subprocess.Popen[str]:
        """A command that goes on; the caller ends it."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **more}
        return subprocess.Popen([*self.command, *arguments], env=self.environment, **pipes)

    def up(self, *flags: str) -> dict[str, Any]:
        """With the flags of the first time at first, later with none: what isn't said stays."""
        self.faas("up", "--detach", *(flags or ([] if self.home.exists() else self.flags)))
        return self.learn()

    def learn(self) -> dict[str, Any]:
        """Where it listens now."""
        status = self.status()
        assert status["ready"], status
        self.url, self.api = status["gateway"], status["api"]
        return status

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.faas("status", "-o", "json").json
        return found

    def pid(self, component: str) -> int:
        found = {each["name"]: each for each in self.status()["components"]}[component]
        return int(found["pid"] or 0)

    def restarts(self, component: str) -> int:
        return int({each["name"]: each for each in self.status()["components"]}[component]["restarts"])

    def source(self, name: str, code: str, **files: str) -> Path:
        """A folder with `handler.py`."""
        folder = self.sources / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "handler.py").write_text(textwrap.dedent(code))
        for file, text in files.items():
            (folder / file.replace("_txt", ".txt").replace("_yaml", ".yaml")).write_text(textwrap.dedent(text))
        return folder

    def deploy(self, name: str, code: str, *flags: str, check: bool = True, **files: str) -> Done:
        return self.faas("deploy", str(self.source(name, code, **files)), *flags, check=check)

    # HTTP

    def call(
        self, path: str, body: bytes | None = None, *, method: str = "", timeout: float = 40.0, **headers: str
    ) -> Reply:
        return self.http(self.url + path, body, method=method, timeout=timeout, **headers)

    def http(
        self, url: str, body: bytes | None = None, *, method: str = "", timeout: float = 40.0, **headers: str
    ) -> Reply:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        request = urllib.request.Request(url, data=body, method=method or None, headers=named)
        context = None
        if url.startswith("https"):
            context = ssl.create_default_context(cafile=str(self.home / "pki" / "ca.crt"))
        try:
            with urllib.request.urlopen(request, timeout=timeout, context=context) as reply:
                return Reply(reply.status, {k.lower(): v for k, v in reply.headers.items()}, reply.read())
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, {k.lower(): v for k, v in error.headers.items()}, error.read())

    @property
    def token(self) -> str:
        return str(yaml.safe_load((self.home / "kubeconfig").read_text())["users"][0]["user"]["token"])

    def kube(
        self,
        method: str,
        path: str,
        document: Any = None,
        content_type: str = "application/json",
        timeout: float = 20.0,
    ) -> Reply:
        """A request of the administrator's to the API."""
        body = None if document is None else json.dumps(document).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": content_type}
        return self.http(self.api + path, body, method=method, timeout=timeout, **headers)

    def pods(self, function: str, namespace: str = "default") -> list[dict[str, Any]]:
        labels = f"?labelSelector=faaslite.dev/function%3D{function}"
        found: list[dict[str, Any]] = self.kube("GET", f"/api/v1/namespaces/{namespace}/pods{labels}").json["items"]
        return found

    def replicas(self, function: str) -> int:
        document = self.kube("GET", f"/apis/faaslite.dev/v1/namespaces/default/functions/{function}").json
        return int((document.get("status") or {}).get("replicas") or 0)

    # What it leaves

    def remember(self) -> None:
        """Note every process of the platform that runs now, so that its end can be checked."""
        for root in psutil.process_iter():
            try:
                if str(self.home) in " ".join(root.cmdline()):
                    for each in (root, *root.children(recursive=True)):
                        self._seen[each.pid] = each.create_time()
            except psutil.NoSuchProcess:
                continue

    def leftovers(self) -> dict[str, list[str]]:
        """What is still there of a platform that has stopped, by sort; empty sorts are left out."""
        found = {
            "processes": self._processes(),
            "cgroups": self._cgroups(),
            "mounts": [
                line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.home) in line
            ],
            "sockets": [line for line in Path("/proc/net/unix").read_text().splitlines() if str(self.home) in line],
            "files": [
                str(each)
                for pattern in ("run/*.sock", "nodes/*/sandboxer/zygotes", "nodes/*/sandboxer/roots", "nodes/*/pods/*")
                for each in self.home.glob(pattern)
            ],
            "temporary": [str(each) for each in self.scratch.iterdir()],
        }
        return {sort: things for sort, things in found.items() if things}

    def _processes(self) -> list[str]:
        found = []
        for each in psutil.process_iter():
            try:
                if each.pid == os.getpid() or each.status() == psutil.STATUS_ZOMBIE:
                    continue
                where = [*each.cmdline(), *(f"{k}={v}" for k, v in each.environ().items()), each.cwd()]
                cgroup = Path(f"/proc/{each.pid}/cgroup").read_text()
                if (
                    any(str(self.home) in part for part in where)
                    or any(name in cgroup for name in self._cgroup_names())
                    or self._seen.get(each.pid) == each.create_time()
                ):
                    found.append(f"{each.pid} {each.name()} {' '.join(each.cmdline())[:120]}")
            except (psutil.Error, OSError):
                continue
        return found

    def _cgroup_names(self) -> list[str]:
        folders = [str((self.home / "nodes" / f"node-{number}" / "sandboxer").resolve()) for number in range(1, 5)]
        return [f"faaslite-{hashlib.sha256(each.encode()).hexdigest()[:12]}" for each in folders]

    def _cgroups(self) -> list[str]:
        names = set(self._cgroup_names())
        return [
            os.path.join(folder, each)
            for folder, below, _ in os.walk("/sys/fs/cgroup")
            for each in below
            if each in names
        ]

    def noise(self) -> list[str]:
        """Lines of the components' logs that a quiet platform doesn't write."""
        return [
            f"{file.name}: {line}"
            for file in sorted((self.home / "logs").glob("*.log"))
            for line in file.read_text(errors="replace").splitlines()
            if NOISE.search(line)
        ]

    def down(self) -> None:
        """Stop it, and fail where anything is left."""
        self.remember()
        self.faas("down")
        self.gone()

    def gone(self) -> None:
        deadline = time.monotonic() + _GONE_SECONDS
        while (left := self.leftovers()) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not left, f"the platform left behind: {json.dumps(left, indent=2)}"

    def kill_rest(self) -> None:
        """End what a failed test left, by process id."""
        self.remember()
        for pid, created in self._seen.items():
            try:
                process = psutil.Process(pid)
                if process.create_time() == created:
                    process.kill()
            except psutil.NoSuchProcess:
                continue


@pytest.fixture(scope="module")
def forked_commands(request: pytest.FixtureRequest) -> Iterator[Any]:
    """What platforms run their commands with. A module that is about the command itself says `EXECUTED = True`."""
    if getattr(request.module, "EXECUTED", False):
        yield None
        return
    with Commands(str(FAAS)) as found:
        yield found


@pytest.fixture(scope="module")
def platforms(forked_commands: Any) -> Iterator[Callable[..., Platform]]:
    """Make data dirs (with short paths: Unix sockets lie in them); what still runs at the end is stopped."""
    made: list[tuple[Platform, Path]] = []

    def make(*flags: str) -> Platform:
        folder = Path(tempfile.mkdtemp(prefix="fp-", dir="/tmp"))
        folder.chmod(0o711)
        platform = Platform(folder, *(flags or ("--runtime", "process", "--api-port", "0", "--gateway-port", "0")))
        platform.forked = forked_commands
        made.append((platform, folder))
        return platform

    yield make
    for platform, folder in made:
        platform.faas("down", check=False)
        platform.kill_rest()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def platform(platforms: Callable[..., Platform], request: pytest.FixtureRequest) -> Iterator[Platform]:
    """The module's cluster. A module may say `FLAGS` (of `faas up`) and `NOISE_ALLOWED` (a pattern of log lines that
    what it does calls for); at the end everything must be gone and the logs quiet."""
    found = platforms(
        "--runtime", "process", "--api-port", "0", "--gateway-port", "0", *getattr(request.module, "FLAGS", ())
    )
    found.up()
    yield found
    found.down()
    allowed = getattr(request.module, "NOISE_ALLOWED", None)
    noise = [line for line in found.noise() if not (allowed and re.search(allowed, line))]
    assert not noise, "the logs are not quiet:\n" + "\n".join(noise[:40])


@pytest.fixture(scope="module")
def theirs(platforms: Any) -> Iterator[Any]:
    """A platform whose commands run as `nobody` (as whoever runs the tests, where that is not root)."""
    own = platforms()
    holder = None
    if os.geteuid() == 0:
        # The checkout may lie where nobody may look: they get a copy, and Python's own path with it.
        code = own.sources.parent / "code"
        ignored = shutil.ignore_patterns(".git", ".venv", "__pycache__", "tests", ".*_cache", "docs")
        shutil.copytree(ROOT, code, ignore=ignored)
        subprocess.run(["chmod", "-R", "a+rX", str(code)], check=True)
        libraries = [each for each in sys.path if each.endswith("site-packages")]
        holder = showing_python(own.sources.parent)
        for each in (own.sources, own.scratch, own.sources.parent):
            os.chown(each, NOBODY, NOBODY)
        own.command = [
            "nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", "setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "--no-new-privs",
            os.path.realpath(sys.executable), "-P", "-m", "cli.main",
        ]  # fmt: skip
        own.environment |= {"PYTHONPATH": os.pathsep.join([str(code), *libraries]), "HOME": str(own.sources.parent)}
    try:
        own.up()
        yield own
        own.down()
    finally:
        own.faas("down", check=False)
        if holder is not None:
            holder.kill()
            holder.communicate()
    assert not [line for line in own.noise() if "Traceback" in line or "Exception" in line], own.noise()


def showing_python(folder: Path) -> subprocess.Popen[str]:
    """A process with a mount namespace in which this Python can be read by anybody, at the place where it lies."""
    prefix = Path(sys.base_prefix).resolve()
    closed = next((each for each in reversed(prefix.parents) if not each.stat().st_mode & 0o001), None)
    steps = ["set -e"]
    if closed is not None:
        (folder / "python").mkdir()
        steps += [
            f"mount --bind {prefix} {folder}/python", f"mount -t tmpfs -o mode=755 none {closed}", f"mkdir -p {prefix}",
            f"mount --bind {folder}/python {prefix}",
        ]  # fmt: skip
    steps += ["echo shown", "exec sleep infinity"]
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(steps)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "shown\n"
    return holder


@dataclass
class Load:
    """Clients that call without a pause until they are told to stop."""

    url: str
    clients: int = 4
    pause: float = 0.0
    results: list[tuple[float, int, str]] = field(default_factory=list)
    """Of each call: when it began, its status (0: no reply), and what went wrong."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._threads = [threading.Thread(target=self._client, daemon=True) for _ in range(self.clients)]
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for each in self._threads:
            each.join(60)

    def _client(self) -> None:
        """Each call on a connection of its own: what fails is then the platform's doing, not a stale connection's."""
        host, path = self.url.removeprefix("http://").split("/", 1)
        while not self._stop.is_set():
            began = time.monotonic()
            connection = http.client.HTTPConnection(host, timeout=40)
            try:
                connection.request("GET", "/" + path)
                reply = connection.getresponse()
                body = reply.read()
                self.results.append((began, reply.status, "" if reply.status == 200 else body.decode(errors="replace")))
            except (OSError, http.client.HTTPException) as error:
                self.results.append((began, 0, repr(error)))
            finally:
                connection.close()
            self._stop.wait(self.pause)

    @property
    def failed(self) -> list[tuple[float, int, str]]:
        return [each for each in self.results if each[1] != 200]

    def wait(self, calls: int, seconds: float = 30.0) -> None:
        """Until so many more calls were answered well."""
        goal = self.good + calls
        until(f"{calls} more calls", lambda: self.good >= goal, seconds)

    @property
    def good(self) -> int:
        return sum(each[1] == 200 for each in self.results)


@pytest.fixture
def load() -> type[Load]:
    return Load


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., Any]:
    return until


@pytest.fixture(scope="session")
def root_folder() -> Path:
    return ROOT


def lines_of(process: subprocess.Popen[str]) -> Sequence[str]:
    assert process.stdout is not None
    return process.stdout.readlines()
