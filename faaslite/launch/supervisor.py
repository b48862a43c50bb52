"""The supervisor: forks the platform's processes, restarts those that die, and answers `faas status` and `faas down`.

It has imported everything once and never starts a thread or an event loop, so that a fork is cheap and safe at any
time. Its own loop is one `select` over signals, children (pidfd), readiness pipes and the control socket; `turn` is one
iteration of it.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any

from faaslite.launch.child import run_child
from faaslite.launch.errors import AlreadyRunning
from faaslite.launch.home import Home
from faaslite.launch.process import HOPELESS, Child, ProcessSpec, ProcessState, restart_delay, startable

__all__ = ["Supervisor"]

Progress = Callable[[dict[str, Any]], None]
_REQUEST_LIMIT = 65536


class Supervisor:
    """Keeps `specs` running until a signal, a `stop` request, or a first start that fails for good.

    `at_end` is called once all have stopped, before those who asked for it learn of it.
    `progress` is told of every change as a small document (`{"process": ..., "state": ...}`, then `{"ready": true}` once).
    """

    def __init__(
        self,
        home: Home,
        specs: Sequence[ProcessSpec],
        *,
        about: dict[str, Any] | None = None,
        progress: Progress | None = None,
        at_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._home = home
        self._children = [Child(each) for each in specs]
        self._about = about or {}
        self._progress = progress or (lambda _: None)
        self._at_end = at_end
        self._selector = selectors.DefaultSelector()
        self._stopping = False
        self._announced = False
        self._started = time.monotonic()
        self._error = ""
        self._lock = -1

    def run(self) -> str:
        """Until everything has stopped. Returns "" or the error that ended it. Raises AlreadyRunning."""
        self._acquire()
        wakeup, signalled = socket.socketpair()
        control = self._listen()
        for each in (wakeup, signalled, control):
            each.setblocking(False)
        previous = [
            (number, signal.signal(number, self._on_signal))
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        ]
        old_wakeup = signal.set_wakeup_fd(signalled.fileno(), warn_on_full_buffer=False)
        self._selector.register(wakeup, selectors.EVENT_READ, lambda: wakeup.recv(4096))
        self._selector.register(control, selectors.EVENT_READ, lambda: self._accept(control))
        gc.collect()
        gc.freeze()
        try:
            while self.turn():
                pass
            self._at_end()
        finally:
            signal.set_wakeup_fd(old_wakeup)
            for number, handler in previous:
                signal.signal(number, handler)
            self._home.supervisor_socket.unlink(missing_ok=True)
            for key in list(self._selector.get_map().values()):
                if isinstance(key.fileobj, socket.socket):
                    key.fileobj.close()
            signalled.close()
            self._selector.close()
            os.close(self._lock)
        return self._error

    def turn(self) -> bool:
        """One iteration: start what is due, wait for something to happen, handle it. False when all is over."""
        now = time.monotonic()
        if self._stopping:
            self._stop_next(now)
            if all(each.state is ProcessState.STOPPED for each in self._children):
                return False
        else:
            for each in startable(self._children, now):
                self._fork(each)
        for key, _ in self._selector.select(self._patience(time.monotonic())):
            key.data()
        return True

    def stop(self) -> None:
        """Begin to stop: the last of the table first."""
        self._stopping = True

    def status(self) -> dict[str, Any]:
        now = time.monotonic()
        return {
            **self._about,
            "ready": not self._stopping and all(each.state is ProcessState.READY for each in self._children),
            "pid": os.getpid(),
            "uptime": round(now - self._started, 1),
            "components": [each.describe(now) for each in self._children],
        }

    # Starting

    def _fork(self, child: Child) -> None:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            kept = {writer}
            self._leave_in_child(kept)
            run_child(child.spec, writer, self._home.component_log(child.spec.name))
        os.close(writer)
        os.set_blocking(reader, False)
        now = time.monotonic()
        child.pid, child.state, child.started_at, child.report = pid, ProcessState.STARTING, now, bytearray()
        child.reader = reader
        pidfd = os.pidfd_open(pid)
        self._selector.register(pidfd, selectors.EVENT_READ, lambda: self._on_exit(child, pidfd))
        self._selector.register(reader, selectors.EVENT_READ, lambda: self._on_report(child, reader))
        self._progress({"process": child.spec.name, "state": "starting", "pid": pid})

    def _leave_in_child(self, kept: set[int]) -> None:
        """Close what is the supervisor's alone; listeners of the data plane are not in the selector and stay."""
        signal.set_wakeup_fd(-1)
        for key in list(self._selector.get_map().values()):
            if key.fd not in kept:
                with suppress(OSError):
                    os.close(key.fd)
        self._selector.close()
        os.close(self._lock)

    def _on_report(self, child: Child, reader: int) -> None:
        if reader not in self._selector.get_map():
            return  # its process ended in this same turn
        try:
            data = os.read(reader, 4096)
        except BlockingIOError:
            return
        if child.reader == reader:
            child.report += data
        if not data:
            self._selector.unregister(reader)
            os.close(reader)
            child.reader = -1 if child.reader == reader else child.reader
        elif child.report.startswith(b"R") and child.state is ProcessState.STARTING:
            child.state, child.ready_at, child.ever_ready = ProcessState.READY, time.monotonic(), True
            took = round((child.ready_at - child.started_at) * 1000)
            self._progress({"process": child.spec.name, "state": "ready", "pid": child.pid, "ms": took})
            if not self._announced and all(each.state is ProcessState.READY for each in self._children):
                self._announced = True
                self._progress({"ready": True, "ms": round((child.ready_at - self._started) * 1000)})

    # Ending

    def _on_exit(self, child: Child, pidfd: int) -> None:
        self._selector.unregister(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(child.pid, 0)
        if child.reader >= 0:
            self._on_report(child, child.reader)  # its last words, which select may have to tell of as well
        now = time.monotonic()
        child.last_exit = _describe_exit(status)
        child.pid = 0
        if self._stopping or child.state is ProcessState.STOPPING:
            child.state = ProcessState.STOPPED
            self._progress({"process": child.spec.name, "state": "stopped"})
            return
        said = bytes(child.report).lstrip(b"R").decode(errors="replace")
        if said:
            child.last_exit += f": {said[1:]}"
        if said.startswith("E") and not child.ever_ready:
            child.state = ProcessState.STOPPED
            self._error = f"{child.spec.name}: {said[1:]}"
            self.stop()
            return
        child.failures, delay = restart_delay(child.failures, now - child.started_at)
        if child.failures >= HOPELESS and not child.ever_ready:
            child.state = ProcessState.STOPPED
            log = self._home.component_log(child.spec.name)
            self._error = f"{child.spec.name} ended {child.failures} times before it was ready, at last by {child.last_exit}; {log} says why"
            self.stop()
            return
        child.restarts += 1
        child.state, child.due_at = ProcessState.WAITING, now + delay
        self._progress({"process": child.spec.name, "state": "died", "exit": child.last_exit, "retry": delay})

    def _stop_next(self, now: float) -> None:
        """Stop in the reverse order of the table, one process at a time but gateways, nodes and jobs of a kind together."""
        going = [each for each in self._children if each.state is ProcessState.STOPPING]
        for each in going:
            if each.kill_at <= now and each.pid:
                os.kill(each.pid, signal.SIGKILL)
                each.kill_at = now + 5.0
        if going:
            return
        for each in self._children:
            if each.state is ProcessState.WAITING:
                each.state = ProcessState.STOPPED
        left = [each for each in self._children if each.pid and each.state is not ProcessState.STOPPED]
        if not left:
            return
        kind = _kind(left[-1].spec.name)
        for each in left:
            if _kind(each.spec.name) == kind:
                each.state, each.kill_at = ProcessState.STOPPING, now + each.spec.grace
                os.kill(each.pid, signal.SIGTERM)

    def _patience(self, now: float) -> float | None:
        due = [each.due_at for each in self._children if each.state is ProcessState.WAITING and each.due_at > now]
        due += [each.kill_at for each in self._children if each.state is ProcessState.STOPPING]
        return max(0.0, min(due) - now) if due else None

    # The world outside

    def _acquire(self) -> None:
        self._lock = os.open(self._home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise AlreadyRunning(
                f"faaslite is already up in {self._home.path}; `faas status` shows it, `faas down` stops it"
            ) from error

    def _listen(self) -> socket.socket:
        path = self._home.supervisor_socket
        path.unlink(missing_ok=True)
        control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        control.bind(str(path))
        path.chmod(0o600)
        control.listen(16)
        return control

    def _accept(self, control: socket.socket) -> None:
        with suppress(BlockingIOError):
            connection, _ = control.accept()
            connection.setblocking(False)
            request = bytearray()
            self._selector.register(connection, selectors.EVENT_READ, lambda: self._on_request(connection, request))

    def _on_request(self, connection: socket.socket, request: bytearray) -> None:
        """One JSON line in, one out. After `stop` the connection stays open until all is over: its end is the answer."""
        try:
            data = connection.recv(4096)
        except OSError:
            data = b""
        request += data
        if not data or len(request) > _REQUEST_LIMIT:
            self._selector.unregister(connection)
            connection.close()
        elif request.endswith(b"\n"):
            answer = self._answer(bytes(request))
            request.clear()
            with suppress(OSError):
                connection.send(json.dumps(answer).encode() + b"\n")

    def _answer(self, request: bytes) -> dict[str, Any]:
        try:
            operation = json.loads(request).get("op")
        except (ValueError, AttributeError):
            return {"error": "a request is one line of JSON with the key op"}
        if operation == "status":
            return self.status()
        if operation == "stop":
            self.stop()
            return {"stopping": True}
        if operation == "rotate-key":
            self._hang_up("jobs")  # where it isn't ready it does that as it starts
            return self._hang_up("core")
        return {"error": f"unknown operation {operation!r}; there are status, stop and rotate-key"}

    def _hang_up(self, name: str) -> dict[str, Any]:
        """SIGHUP to a process that is ready: it reads its files again."""
        for each in self._children:
            if each.spec.name == name and each.state is ProcessState.READY:
                os.kill(each.pid, signal.SIGHUP)
                return {"told": name}
        return {"error": f"{name} is not ready; try again"}

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self.stop()


def _kind(name: str) -> str:
    return name.rsplit("-", 1)[0] if name[-1].isdigit() else name


def _describe_exit(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
