"""The supervisor forks real processes: it starts them in order, restarts them, reports, and leaves none behind."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from core.errors import FaasliteError
from faaslite.launch import control
from faaslite.launch.errors import AlreadyRunning, NotRunning
from faaslite.launch.home import Home
from faaslite.launch.process import BACKOFF_LAST, Child, ProcessSpec, ProcessState, restart_delay, startable
from faaslite.launch.supervisor import Supervisor


def serve(report: int) -> None:
    """Be ready, and end at TERM."""
    os.write(report, b"R")
    signal.pause()


def refuse(report: int) -> None:
    raise FaasliteError("the port is taken")


class Run:
    """A supervisor in a process of its own, as in life; its progress comes over a pipe."""

    def __init__(self, home: Home, specs: list[ProcessSpec]) -> None:
        reader, writer = os.pipe()
        self.home = home
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reader)
            try:
                said = lambda event: os.write(writer, json.dumps(event).encode() + b"\n")  # noqa: E731
                error = Supervisor(home, specs, about={"api": "here"}, progress=said).run()
                said({"ended": error})
            finally:
                os._exit(0)
        os.close(writer)
        self.events = os.fdopen(reader)

    def until(self, **wanted):
        for line in self.events:
            event = json.loads(line)
            if all(event.get(key) == value for key, value in wanted.items()):
                return event
        raise AssertionError(f"ended without {wanted}")

    def end(self) -> str:
        os.kill(self.pid, signal.SIGTERM)
        return self.until_end()

    def until_end(self) -> str:
        event = None
        for line in self.events:
            event = json.loads(line)
        os.waitpid(self.pid, 0)
        self.events.close()
        assert event is not None
        return event["ended"]


@pytest.fixture
def home(short_path):
    found = Home(short_path / "h")
    found.prepare()
    return found


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_starts_in_order_and_stops_in_reverse(home):
    run = Run(home, [ProcessSpec("core", serve), ProcessSpec("jobs", serve, after=["core"])])
    assert run.until(process="core", state="starting")["pid"]
    assert run.until(process="core", state="ready")
    second = run.until(process="jobs", state="ready")["pid"]
    assert run.until(ready=True)["ms"] >= 0
    os.kill(run.pid, signal.SIGTERM)
    assert run.until(state="stopped")["process"] == "jobs"
    assert run.until(state="stopped")["process"] == "core"
    assert run.until_end() == ""
    assert not alive(second)
    assert not home.supervisor_socket.exists()


def test_restarts_what_is_killed_and_counts_it(home):
    run = Run(home, [ProcessSpec("core", serve)])
    first = run.until(process="core", state="ready")["pid"]
    os.kill(first, signal.SIGKILL)
    assert run.until(process="core", state="died")["exit"] == "killed by SIGKILL"
    second = run.until(process="core", state="ready")["pid"]
    assert second != first
    status = control.ask(home, "status")
    assert status["ready"] is True
    assert status["api"] == "here"
    assert status["components"][0]["restarts"] == 1
    assert status["components"][0]["pid"] == second
    assert run.end() == ""


def test_a_first_start_that_fails_knowingly_ends_everything_with_the_reason(home):
    run = Run(home, [ProcessSpec("core", serve), ProcessSpec("gateway-1", refuse, after=["core"])])
    assert run.until_end() == "gateway-1: the port is taken"


def test_a_first_start_that_fails_again_and_again_ends_everything_with_the_reason(home):
    def broken(report: int) -> None:
        raise TypeError("no such argument")

    run = Run(home, [ProcessSpec("jobs", serve), ProcessSpec("core", broken)])
    reason = run.until_end()
    assert reason.startswith(
        "core ended 5 times before it was ready, at last by exit code 1: TypeError: no such argument;"
    )
    assert str(home.component_log("core")) in reason


def test_kills_what_does_not_stop_within_its_grace(home):
    def stubborn(report: int) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(report, b"R")
        while True:
            signal.pause()

    run = Run(home, [ProcessSpec("core", stubborn, grace=0.2)])
    pid = run.until(state="ready")["pid"]
    assert run.end() == ""
    assert not alive(pid)


def test_children_die_with_a_supervisor_that_is_killed(home):
    run = Run(home, [ProcessSpec("core", serve)])
    pid = run.until(state="ready")["pid"]
    child = os.pidfd_open(pid)
    os.kill(run.pid, signal.SIGKILL)
    os.waitpid(run.pid, 0)
    run.events.close()
    import select

    ended, _, _ = select.select([child], [], [], 10)
    os.close(child)
    assert ended
    with pytest.raises(NotRunning):
        control.ask(home, "status")


def test_one_data_dir_has_one_supervisor_and_stop_waits_for_the_end(home):
    run = Run(home, [ProcessSpec("core", serve)])
    pid = run.until(state="ready")["pid"]
    with pytest.raises(AlreadyRunning, match="already up"):
        Supervisor(home, []).run()
    stopper = threading.Thread(target=control.stop, args=(home,))
    stopper.start()
    assert run.until_end() == ""
    stopper.join(10)
    assert not stopper.is_alive()
    assert not alive(pid)


def test_garbage_on_the_control_socket_gets_an_answer(home):
    import socket

    run = Run(home, [ProcessSpec("core", serve)])
    run.until(ready=True)
    for request, answer in (
        (b"hello\n", "one line of JSON"),
        (b'{"op": "dance"}\n', "unknown operation"),
        (b"[1]\n", "one line"),
    ):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(home.supervisor_socket))
            connection.sendall(request)
            assert answer in json.loads(connection.recv(65536))["error"]
    assert run.end() == ""


def test_output_of_a_process_is_in_its_log(home):
    def chatty(report: int) -> None:
        os.write(1, b"said something\n")
        serve(report)

    run = Run(home, [ProcessSpec("jobs", chatty)])
    run.until(ready=True)
    assert run.end() == ""
    log = home.component_log("jobs")
    assert "said something" in log.read_text()
    assert log.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("failures", "uptime", "expected"),
    [(0, 0.0, (1, 0.1)), (1, 0.0, (2, 0.2)), (4, 1.0, (5, 1.6)), (20, 1.0, (21, BACKOFF_LAST)), (20, 31.0, (1, 0.1))],
)
def test_restart_delays_double_and_start_over(failures, uptime, expected):
    assert restart_delay(failures, uptime) == pytest.approx(expected)


def test_startable_waits_for_predecessors_and_for_its_time():
    core, jobs = Child(ProcessSpec("core", serve)), Child(ProcessSpec("jobs", serve, after=["core"]))
    assert startable([core, jobs], 0.0) == [core]
    core.state, core.ever_ready = ProcessState.READY, True
    assert startable([core, jobs], 0.0) == [jobs]
    jobs.due_at = 5.0
    assert startable([core, jobs], 4.9) == []
    assert startable([core, jobs], 5.0) == [jobs]


def test_backoff_keeps_time(home):
    """A process that dies at once is not restarted in a busy loop."""

    def dies(report: int) -> None:
        os._exit(3)

    run = Run(home, [ProcessSpec("core", dies)])
    began = time.monotonic()
    assert run.until(state="died")["exit"] == "exit code 3"
    assert run.until(state="died")["retry"] == pytest.approx(0.2)
    assert run.until(state="died")["retry"] == pytest.approx(0.4)
    assert time.monotonic() - began >= 0.3
    assert run.end() == ""
    assert Path(home.component_log("core")).exists()
