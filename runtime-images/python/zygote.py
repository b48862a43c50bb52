"""Processes that wait, warm, to become functions: `python -I -S zygote.py FD`, started by a node's sandboxer.

Three generations, each forked from the one before, twice or with CLONE_PARENT, so that all of them are children of the sandboxer:

- the *base*, one per runtime image, has imported the shim and much of the standard library, and runs nothing else;
- a *zygote*, one per namespace and dependency layer, has gone into its namespaces and given up its privileges for good,
  and then imports what functions want of the layer; it stays single-threaded and never loads function code;
- a *parked child* waits for one message, by which it becomes the instance of a function.

Each is told what to do over a SOCK_SEQPACKET socket: one JSON document a message, descriptors beside it.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import gc
import importlib
import importlib.util
import io
import json
import os
import random
import resource
import signal
import socket
import sys
import types
from collections.abc import Callable
from typing import Any

MAX_MESSAGE = 1 << 20
TIOCSCTTY = 0x540E  # become a session's terminal; `termios` has it, for one import more
RESERVED = 3  # where an instance finds its listening socket
STANDARD = (
    "asyncio", "base64", "collections.abc", "contextlib", "contextvars", "copy", "csv", "dataclasses", "datetime", "decimal", "email.message",
    "enum", "functools", "hashlib", "hmac", "html", "http.client", "importlib.metadata", "inspect", "io", "itertools", "logging",
    "math", "pathlib", "random", "re", "secrets", "sqlite3", "ssl", "string", "subprocess", "tempfile", "time", "traceback", "typing",
    "urllib.parse", "urllib.request", "uuid", "zoneinfo",
)  # fmt: skip


def receive(control: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next message and its descriptors; None at the end."""
    descriptors = array.array("i")
    try:
        # The length first: a buffer for the longest message would be a megabyte of fresh memory for each short one.
        length = control.recv_into(bytearray(1), 1, socket.MSG_PEEK | socket.MSG_TRUNC)
        data, ancillary, _, _ = control.recvmsg(
            min(length, MAX_MESSAGE) or 1, socket.CMSG_SPACE(8 * descriptors.itemsize), socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionResetError:
        return None
    if not data:
        return None
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
    return json.loads(data), list(descriptors)


def send(control: socket.socket, message: dict[str, Any]) -> None:
    control.send(json.dumps(message).encode())


def fork_away(control: socket.socket | io.BufferedWriter, beside: Callable[[], int] | None = None) -> bool:
    """Fork a process that isn't our child but our parent's; True in it. `control` stays open there alone. `beside` does so with one fork."""
    if beside is not None:
        try:
            if beside() == 0:
                return True
        except OSError:  # a kernel that doesn't have it
            pass
        else:
            control.close()
            return False
    between = os.fork()
    if between == 0:
        if os.fork() != 0:
            os._exit(0)
        return True
    control.close()
    os.waitpid(between, 0)
    return False


def reseed() -> None:
    """Random states that are kept in memory: the fork would have those of its siblings."""
    random.seed()
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        numpy.seed()


def _in_a_child(work: Callable[[], Any]) -> Any:
    """What `work` returns, done in a process that ends with it: its memory, and what it may trip over, don't stay. None where it failed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reader)
            data = json.dumps(work()).encode()
            while data:
                data = data[os.write(writer, data) :]
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with open(reader, "rb") as file:
        answer = file.read()
    os.waitpid(child, 0)
    return json.loads(answer) if answer else None


class Generations:
    """What all three generations know: where the node's isolation code lies, and who the sandboxer is."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.sandboxer: int = options["sandboxer"]
        self.isolation = _load_package("faaslite_isolation", options["isolation"])
        sys.path.append(options["shim"])
        try:
            bootstrap = importlib.import_module("faaslite_shim.bootstrap")
            bootstrap.import_libraries(options["libraries"])
            self.server = importlib.import_module("faaslite_shim.server")
            self.imports = importlib.import_module("faaslite_shim.imports")
            self.bytecode = importlib.import_module("faaslite_shim.bytecode")
            for name in importlib.import_module("faaslite_shim.handlers").LATER:
                importlib.import_module(name)
            for name in STANDARD:
                with contextlib.suppress(ImportError):  # not every Python is built with all of them
                    importlib.import_module(name)
            self.rehearsal = importlib.import_module("faaslite_shim.rehearsal")
            self.rehearsal.rehearse()
        finally:
            sys.path.remove(options["shim"])

    def be_base(self, control: socket.socket) -> None:
        """Fork zygotes until the sandboxer closes the socket."""
        gc.collect()
        gc.freeze()
        send(control, {"born": os.getpid()})
        while (message := receive(control)) is not None:
            spec, descriptors = message
            if spec.get("op") == "compile":
                self._compile(control, spec, *descriptors)
                continue
            theirs = socket.socket(fileno=descriptors[0])
            if fork_away(theirs):
                control.close()
                self.be_zygote(theirs, spec)
                os._exit(0)

    def _compile(self, control: socket.socket, spec: dict[str, Any], folder: int, output: int) -> None:
        """Say in `output` what modules of `folder` compile to: in a process of its own, for the source is anybody's."""
        with open(output, "wb") as file:
            if not fork_away(file):
                os.close(folder)
                return
            try:
                control.close()
                os.nice(19)
                os.fchdir(folder)
                for limit, most in (
                    (resource.RLIMIT_CPU, 20),
                    (resource.RLIMIT_AS, 1 << 30),
                    (resource.RLIMIT_CORE, 0),
                ):
                    resource.setrlimit(limit, (most, most))
                hold, held = self.isolation, spec["isolation"]
                if os.geteuid() == 0:
                    hold.drop(spec["uid"], spec["uid"])
                hold.parent_death_signal(self.sandboxer)
                hold.no_new_privs()
                if "landlock" in held:
                    rules = hold.Ruleset()
                    rules.allow(".")
                    rules.restrict()
                if "seccomp" in held:
                    hold.install_filter()
                for each in self.bytecode.frames(spec["names"]):
                    file.write(each)
                file.flush()
            finally:
                os._exit(0)

    def be_zygote(self, control: socket.socket, spec: dict[str, Any]) -> None:
        """Give up what `spec` says, then fork children and import modules as told."""
        try:
            self._confine(spec)
        except OSError as error:
            send(control, {"failed": str(error)})
            return
        os.environ.clear()
        beside = self.isolation.forker_beside()
        gc.collect()
        gc.freeze()
        send(control, {"born": os.getpid()})
        while (message := receive(control)) is not None:
            request, descriptors = message
            if request["op"] == "import":
                wanted = _in_a_child(lambda: sorted(self.imports.wanted(request["package"])))  # noqa: B023 - called at once
                found = self.imports.preload(wanted, request["package"], request["layer"])
                if found["imported"] and request["layer"]:
                    beside = None  # their libraries may have handlers of forks
                if found["imported"]:
                    gc.collect()  # of what is new alone: what is frozen must stay as it is, for it is shared
                    gc.freeze()
                send(control, found)
                continue
            theirs = socket.socket(fileno=descriptors[0])
            if fork_away(theirs, beside):
                control.close()
                for each in descriptors[1:]:
                    os.write(each, b"0")  # into its control groups, of which these are cgroup.procs
                    os.close(each)
                self.be_child(theirs, spec, request["waits"], request["slot"])
                os._exit(0)
            for each in descriptors[1:]:
                os.close(each)

    def _confine(self, spec: dict[str, Any]) -> None:
        hold = self.isolation
        held = spec["isolation"]
        if "user" in held:
            hold.enter_user_namespace()
            hold.bound_processes(spec["processes"])
        if "mount" in held:
            hold.unshare("mount", *(each for each in ("ipc", "uts") if each in held))
            hold.enter_root(spec["root"], spec["folders"], spec["binds"])
        if "uid" in held or os.geteuid() == 0 or "user" in held:
            hold.drop(spec["uid"], spec["uid"])
        hold.parent_death_signal(self.sandboxer)
        hold.no_new_privs()
        if "seccomp" in held:
            hold.install_filter()

    def be_child(self, control: socket.socket, spec: dict[str, Any], waits: bool, slot: list[str]) -> None:
        """Wait for a function, and become it. `waits` says whether there is time to prepare; `slot` names the child's folder, and
        what it may write of it: its tmp and its termination message."""
        folder, tmp, message_path = slot
        os.setsid()
        self.isolation.parent_death_signal(self.sandboxer)
        reseed()
        loop = self.server.new_loop()
        if waits:
            self.rehearsal.touch(loop, tmp)
        rules = self.isolation.Ruleset() if "landlock" in spec["isolation"] else None
        if rules is not None:
            for path in (*spec["readable"], folder):
                rules.allow(path)
            for path in (*spec["writable"], tmp, message_path):
                rules.allow(path, write=True)
        send(control, {"born": os.getpid()})
        message = receive(control)
        if message is None:
            os._exit(0)
        adoption, descriptors = message
        if adoption.get("stdin"):
            os.dup2(descriptors[-1], 0, inheritable=True)
            os.close(descriptors.pop())
        if adoption.get("terminal"):
            fcntl.ioctl(0, TIOCSCTTY, 0)
        if len(descriptors) > 2:
            os.dup2(descriptors[2], RESERVED, inheritable=True)
        elif not adoption["argv"]:
            os.close(RESERVED)
        os.dup2(descriptors[0], 1, inheritable=True)
        os.dup2(descriptors[1], 2, inheritable=True)
        for each in descriptors:
            os.close(each)
        environment = adoption["env"]
        environment["FAASLITE_READY_FD"] = str(control.fileno())
        control.detach()
        os.environ.clear()
        self.rehearsal.take_environment(environment)
        os.umask(0o022)
        os.chdir(adoption["directory"])
        if rules is not None:
            for path in adoption["readable"]:
                rules.allow(path)
            for path in adoption["writable"]:
                rules.allow(path, write=True)
            rules.restrict()
        if adoption["argv"]:
            _execute(adoption["argv"], adoption["announces"])
        sys.argv = ["function"]
        main = types.ModuleType("__main__")
        sys.modules["__main__"] = main
        code = 1
        try:
            code = self.server.run(environment, loop)
        finally:
            os._exit(code)


def _execute(argv: list[str], announces: bool) -> None:
    """Become a command: a plain one, or a shim that says when it is ready."""
    if announces:
        os.set_inheritable(int(os.environ["FAASLITE_READY_FD"]), True)
    else:
        del os.environ["FAASLITE_READY_FD"]
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and what is ignored stays so
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(argv[0], argv)  # noqa: S606
    except OSError as error:
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
    os._exit(127 if not os.path.exists(argv[0]) else 126)


def _load_package(name: str, folder: str) -> Any:
    spec = importlib.util.spec_from_file_location(
        name, os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    descriptor = os.dup(int(sys.argv[1]))  # a number above the reserved one, whatever it was
    null = os.open("/dev/null", os.O_RDWR)
    while descriptor <= RESERVED:
        descriptor = os.dup(descriptor)
    os.set_inheritable(descriptor, False)
    os.dup2(null, RESERVED, inheritable=False)
    sys.dont_write_bytecode = True
    sys.executable = getattr(sys, "_base_executable", sys.executable)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    control = socket.socket(fileno=descriptor)
    first = receive(control)
    if first is not None:
        generations = Generations(first[0])
        generations.isolation.parent_death_signal(generations.sandboxer)
        with contextlib.suppress(BrokenPipeError):  # the sandboxer has let go of whoever tells it of its birth
            generations.be_base(control)
    os._exit(0)


if __name__ == "__main__":
    main()
