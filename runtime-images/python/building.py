"""`faaslite-build`: install what a function requires into a layer, and hand it to the package store (PROTOCOL.md, "Building a layer").

It runs in a Pod of its own in the function's namespace, in the runtime that the layer is for. Its output is the build's log; its termination
message is the layer as JSON, or one line that says why there is none.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import importlib.util
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import tarfile
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

LARGEST, LARGEST_UNPACKED = 256 << 20, 1 << 30
"""Bytes of a layer that the package store takes, and of what it unpacks to."""
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
MESSAGE = 1500
TRIES = 20
_CLAUSE = re.compile(r"(~=|==|!=|<=|>=|<|>)\s*(\d+(?:\.\d+)*)(\.\*)?")


class Failed(Exception):
    """Why there is no layer, for its author."""


def main(environment: Mapping[str, str]) -> int:
    message = environment.get("FAASLITE_TERMINATION_LOG") or "/dev/termination-log"
    try:
        said, code = json.dumps(build(environment)), 0
    except Failed as error:
        said, code = " ".join(str(error).split())[:MESSAGE], 1
        say(f"error: {said}")
    except OSError as error:
        said, code = f"the build's machine: {error}"[:MESSAGE], 1
        say(f"error: {said}")
    with contextlib.suppress(OSError):
        Path(message).write_text(said)
    return code


def build(environment: Mapping[str, str]) -> dict[str, Any]:
    """The digest and the size (bytes) of the layer, which the store has then. Raises Failed, OSError."""
    source, wanted, lines = read_requirements(environment["FAASLITE_REQUIREMENTS"])
    node = environment.get("FAASLITE_RUNTIME", "").startswith("node")
    if not node:
        check_python(source, wanted)
    scratch = Path(environment["FAASLITE_BUILD"])
    place, target, archive = scratch / "source", scratch / "layer", scratch / "layer.tar.gz"
    try:
        package = environment.get("FAASLITE_PACKAGE", "")
        if node:
            place.mkdir()
        elif any(word.startswith("./") for line in lines for word in line.split()) and os.path.isdir(package):
            shutil.copytree(package, place, symlinks=True)
            for at, _, _ in os.walk(place):
                os.chmod(at, 0o700)  # a package is read-only, and its copy was
        else:
            place.mkdir()
        (install_modules if node else install)(source, lines, place, target, environment)
        digest, size = pack(target, archive)
        upload(archive, digest, size, environment)
    finally:
        # The Pod may stay for its log; what it made needn't.
        for each in (place, target, scratch / "tmp", scratch / "tools"):
            shutil.rmtree(each, ignore_errors=True)
        archive.unlink(missing_ok=True)
    return {"digest": digest, "size": size}


def read_requirements(text: str) -> tuple[str, str, list[str]]:
    """What messages call the requirements, which Python they ask for, and the requirements themselves."""
    source, python, lines = "spec.package.requirements", "", []
    for line in text.splitlines():
        if line.startswith("# from "):
            source = line.removeprefix("# from ").strip()
        elif line.startswith("# requires-python: "):
            python = line.removeprefix("# requires-python: ").strip()
        elif line.strip() and not line.startswith("#"):
            lines.append(line)
    return source, python, lines


def check_python(source: str, wanted: str, version: tuple[int, ...] = sys.version_info[:3]) -> None:
    """Raises Failed unless `version` is among those of a specifier such as `>=3.11,<4` (PEP 440)."""
    for clause in filter(None, (each.strip() for each in wanted.split(","))):
        matched = _CLAUSE.fullmatch(clause)
        if matched is None:
            raise Failed(f"{source}: requires-python {wanted!r} is no version specifier")
        operator, numbers, prefix = matched[1], tuple(int(each) for each in matched[2].split(".")), matched[3]
        if not _holds(operator, numbers, bool(prefix), version):
            has = ".".join(map(str, version[:2]))
            raise Failed(
                f"{source} requires Python {wanted}, the function's runtime is Python {has}; say another with --runtime"
            )


def _holds(operator: str, numbers: tuple[int, ...], prefix: bool, version: tuple[int, ...]) -> bool:
    begins = version[: len(numbers)] == numbers
    if prefix:
        return begins if operator == "==" else not begins
    padded = (*numbers, 0, 0, 0)[: max(3, len(numbers))]
    match operator:
        case "==":
            return version == padded
        case "!=":
            return version != padded
        case "~=":
            return version >= padded and version[: len(numbers) - 1] == numbers[:-1]
        case ">=":
            return version >= padded
        case "<=":
            return version <= padded
        case ">":
            return version > padded
        case _:
            return version < padded


def install(source: str, lines: Sequence[str], place: Path, target: Path, environment: Mapping[str, str]) -> None:
    """Into the folder `target`. Raises Failed with what the installer complained of."""
    shared = _installing()
    listed = place / ".faaslite-requirements.txt"
    listed.write_text("\n".join(lines) + "\n")
    temporary = place.parent / "tmp"
    temporary.mkdir(exist_ok=True)
    tool = find_tool(environment, place.parent / "tools")
    if not tool:
        raise Failed("dependencies need uv or pip, and this node's runtime has neither")
    say(f"installing {', '.join(lines)} for Python {PYTHON}")
    command = shared.installer(tool, str(listed), str(target), PYTHON, own=sys.executable)
    more = {"TMPDIR": str(temporary), "HOME": str(temporary), "NO_COLOR": "1", "UV_CACHE_DIR": str(temporary / "uv")}
    # The cache of a Pod that goes is of no use, and what is in it would count twice.
    tail, code = run({"PIP_NO_CACHE_DIR": "1", **environment, **more}, command, place, shared.BUILD_SECONDS)
    if code:
        raise Failed(f"{source}: {shared.reason(tail, PYTHON)}")
    target.mkdir(exist_ok=True)
    shutil.rmtree(target / "bin", ignore_errors=True)
    say(f"installed {', '.join(shared.installed(target)) or 'nothing'}")
    shared.compile_layer(target, sys.executable)


def install_modules(
    source: str, lines: Sequence[str], place: Path, target: Path, environment: Mapping[str, str]
) -> None:
    """What npm puts into `node_modules`, as the folder `target`. Raises Failed with what it complained of."""
    shared = _installing()
    node = environment.get("FAASLITE_NODE") or shutil.which("node")
    npm = environment.get("FAASLITE_INSTALLER") or shutil.which("npm")
    if not node or not npm:
        raise Failed("dependencies need npm, and this node's runtime has none")
    package = Path(environment["FAASLITE_PACKAGE"])
    names = []
    for line in lines:
        name, _, digest = line.removeprefix("./").partition(" ")
        if name not in shared.NPM_FILES:
            raise Failed(f"{source}: {line!r} is no file that npm reads")
        if not (package / name).is_file() or file_digest(package / name) != digest:
            raise Failed(f"{source}: {name} of the package isn't the one that is required; deploy again")
        shutil.copyfile(package / name, place / name)
        names.append(name)
    temporary = place.parent / "tmp"
    temporary.mkdir(exist_ok=True)
    arguments = shared.npm_arguments(any(each in shared.LOCKS for each in names))
    say(f"npm {arguments[0]}: {', '.join(names)}")
    folders = os.pathsep.join((os.path.dirname(node), environment.get("PATH", os.defpath)))
    more = {
        "TMPDIR": str(temporary),
        "HOME": str(temporary),
        "NPM_CONFIG_CACHE": str(temporary / "npm"),
        "PATH": folders,
    }
    found = {"NODE_ENV": "production", **environment, **more}
    tail, code = run(found, [node, npm, *arguments], place, shared.BUILD_SECONDS)
    if code:
        raise Failed(f"{source}: {shared.npm_reason(tail)}")
    modules = place / "node_modules"
    modules.mkdir(exist_ok=True)
    say(f"installed {', '.join(shared.prune_modules(modules)) or 'nothing'}")
    modules.rename(target)


def file_digest(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def _installing() -> Any:
    """The module beside this file."""
    path = Path(__file__).with_name("installing.py")
    spec = importlib.util.spec_from_file_location("installing", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["installing"] = module
    spec.loader.exec_module(module)
    return module


def find_tool(environment: Mapping[str, str], folder: Path) -> list[str]:
    """How uv or pip is called: as the node says (`FAASLITE_INSTALLER`, uv's program or pip's folder), else what this image has."""
    said = environment.get("FAASLITE_INSTALLER") or shutil.which("uv") or ""
    if os.path.basename(said) == "uv":
        return [said]
    if said:
        # pip reads the folder that it lies in, where there is more than this Pod may see.
        folder.mkdir(exist_ok=True)
        (folder / "pip").symlink_to(said)
        return [sys.executable, "-I", str(folder / "pip")]
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-I", "-m", "pip"]
    brought = Path(__file__).with_name("installer") / "pip"
    return [sys.executable, "-I", str(brought)] if brought.is_dir() else []


def run(environment: Mapping[str, str], command: Sequence[str], place: Path, seconds: float) -> tuple[list[str], int]:
    """The command's last lines, which are said as they come, and its exit code."""
    tail: deque[str] = deque(maxlen=200)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, errors="replace",
        env=dict(environment), cwd=place,
    ) as process:  # fmt: skip
        late = threading.Timer(seconds, process.kill)
        late.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                say(line.rstrip())
                tail.append(line.rstrip())
            code = process.wait()
        finally:
            late.cancel()
    if code == -9:
        tail.append(f"ERROR: it was killed: it took longer than {seconds:.0f} s, or more memory than a build has")
    return list(tail), code


class _Hashed:
    """A file that knows the digest and the size of what was written to it."""

    def __init__(self, file: Any, most: int) -> None:
        self._file = file
        self._most = most
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self.size += len(data)
        if self.size > self._most:
            raise Failed(f"the dependencies pack to more than {self._most >> 20} MiB, the limit of the package store")
        self.digest.update(data)
        return int(self._file.write(data))

    def flush(self) -> None:
        self._file.flush()


def pack(folder: Path, archive: Path, *, most: int = LARGEST, unpacked: int = LARGEST_UNPACKED) -> tuple[str, int]:
    """A gzipped tar that is equal byte for byte where the files are: its digest and size. Raises Failed where it is over a limit."""
    files = sorted(
        (os.path.relpath(os.path.join(at, name), folder), os.path.join(at, name))
        for at, folders, names in os.walk(folder)
        for name in (*names, *(each for each in folders if os.path.islink(os.path.join(at, each))))
    )
    total = sum(os.lstat(path).st_size for _, path in files)
    if total > unpacked:
        raise Failed(f"the dependencies have {total >> 20} MiB, over the limit of {unpacked >> 20} MiB")
    with open(archive, "wb") as file:
        hashed = _Hashed(file, most)
        with (
            gzip.GzipFile(filename="", mode="wb", fileobj=hashed, compresslevel=6, mtime=0) as packed,  # type: ignore[call-overload]
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            for name, path in files:
                _add(tar, name, path)
    return f"sha256:{hashed.digest.hexdigest()}", hashed.size


def _add(tar: tarfile.TarFile, name: str, path: str) -> None:
    info = tarfile.TarInfo(name)
    if os.path.islink(path):
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
        landed = os.path.normpath(os.path.join(os.path.dirname(name), info.linkname))
        if os.path.isabs(info.linkname) or landed.split("/")[0] == "..":
            raise Failed(f"{name}, of the dependencies, links out of the layer, to {info.linkname}")
        tar.addfile(info)
        return
    status = os.stat(path)
    info.size, info.mode = status.st_size, 0o755 if status.st_mode & 0o100 else 0o644
    with open(path, "rb") as data:
        tar.addfile(info, data)


def _size(count: int) -> str:
    return f"{count / 1024:.1f} KiB" if count < 1 << 20 else f"{count / (1 << 20):.1f} MiB"


def upload(archive: Path, digest: str, size: int, environment: Mapping[str, str]) -> None:
    """Raises Failed with what the store says. A gateway that isn't there is waited for: it may be starting again."""
    began = time.monotonic()
    token = Path(environment["FAASLITE_TOKEN_FILE"]).read_text().strip()
    path = f"/system/packages/{digest}?namespace={quote(environment['FAASLITE_NAMESPACE'])}"
    headers = {"Authorization": f"Bearer {token}", "Content-Length": str(size)}
    for left in reversed(range(TRIES)):
        try:
            with contextlib.closing(_connection(environment)) as connection, open(archive, "rb") as body:
                connection.request("PUT", path, body=body, headers=headers)
                reply = connection.getresponse()
                said = reply.read()
        except (OSError, http.client.HTTPException) as error:
            if not left:
                raise Failed(
                    f"the package store at {environment['FAASLITE_STORE']} can't be reached: {error}"
                ) from error
            time.sleep(0.25)
            continue
        if reply.status < 400:
            say(f"uploaded the layer: {_size(size)} in {time.monotonic() - began:.1f} s")
            return
        if reply.status < 500 or not left:
            raise Failed(f"the package store refused the layer: {_message(said) or reply.status}")
        time.sleep(0.25)


def _connection(environment: Mapping[str, str]) -> http.client.HTTPConnection:
    parts = urlsplit(environment["FAASLITE_STORE"])
    if parts.scheme != "https":
        return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120.0)
    trust = ssl.create_default_context()
    authority = environment.get("FAASLITE_CA_FILE", "")
    if os.path.exists(authority):
        trust.load_verify_locations(authority)
    return http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=120.0, context=trust)


def _message(data: bytes) -> str:
    try:
        return str(json.loads(data).get("message") or "")
    except (ValueError, AttributeError):
        return data.decode(errors="replace").strip()[:300]


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main(os.environ))
