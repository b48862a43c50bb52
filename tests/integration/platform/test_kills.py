"""kill -9 of each process under a steady load: what comes back, how soon, and which calls it costs."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

FLAGS = ("--workers", "2")
NOISE_ALLOWED = r"(WARNING|ERROR) "
"""A killed process is worth a warning to those that were connected to it. A traceback never is."""

CODE = """
    import os, time

    def handle(event, context):
        time.sleep(float(event.query.get("pause", 0.02)))
        return str(os.getpid())
"""
BACK_SECONDS = 10.0


@pytest.fixture(scope="module")
def steady(platform: Any, wait_until: Callable[..., Any]) -> Any:
    """A function with two instances that stay."""
    platform.deploy("steady", CODE, "--min", "2", "--concurrency", "10")
    wait_until("two instances", lambda: platform.replicas("steady") == 2 and len(pods(platform)) == 2)
    return platform


@pytest.fixture
def quiet(steady: Any) -> Iterator[None]:
    yield
    assert not [line for line in steady.noise() if "Traceback" in line or "Exception" in line], steady.noise()


def pods(platform: Any) -> dict[str, tuple[str, int]]:
    """Of each ready Pod: its address and how often it was restarted."""
    return {
        each["metadata"]["name"]: (each["status"]["podIP"], each["status"]["containerStatuses"][0]["restartCount"])
        for each in platform.pods("steady")
        if any(c["type"] == "Ready" and c["status"] == "True" for c in each["status"].get("conditions", ()))
    }


def answering(platform: Any) -> set[str]:
    """Process ids (in their namespace) of those who answer."""
    return {platform.call("/function/steady").body.decode() for _ in range(12)}


def kill(platform: Any, component: str) -> float:
    pid = platform.pid(component)
    os.kill(pid, signal.SIGKILL)
    return time.monotonic()


def back(platform: Any, component: str, before: int, since: float, wait_until: Callable[..., Any]) -> float:
    """Seconds until the supervisor has it ready again."""

    def ready() -> bool:
        status = platform.status()
        row = {each["name"]: each for each in status["components"]}[component]
        return bool(status["ready"] and row["restarts"] == before + 1 and row["lastExit"] == "killed by SIGKILL")

    wait_until(f"{component} being back", ready, BACK_SECONDS)
    return time.monotonic() - since


@pytest.mark.usefixtures("quiet")
class TestKills:
    def test_core(self, steady: Any, load: Any, wait_until: Callable[..., Any]) -> None:
        """Calls go on without an API; what it acknowledged is there when it comes back; so are the Pods."""
        before, restarts, stop, acknowledged = pods(steady), steady.restarts("core"), threading.Event(), []

        def write() -> None:
            number = 0
            while not stop.is_set():
                name = f"kept-{number}"
                number += 1
                try:
                    made = steady.kube(
                        "POST", "/api/v1/namespaces/default/configmaps", {"metadata": {"name": name}}, timeout=5
                    )
                except OSError:
                    stop.wait(0.02)
                    continue
                if made.status == 201:
                    acknowledged.append(name)

        writer = threading.Thread(target=write)
        with load(steady.url + "/function/steady") as running:
            writer.start()
            try:
                wait_until("some writes", lambda: len(acknowledged) > 20)
                since = kill(steady, "core")
                back(steady, "core", restarts, since, wait_until)
                enough = len(acknowledged) + 20
                wait_until("writes again", lambda: len(acknowledged) > enough)
                running.wait(50)
            finally:
                stop.set()
                writer.join(20)
        assert running.failed == []
        found = steady.kube("GET", "/api/v1/namespaces/default/configmaps").json["items"]
        lost = set(acknowledged) - {each["metadata"]["name"] for each in found}
        assert not lost, f"{len(lost)} of {len(acknowledged)} acknowledged writes are lost: {sorted(lost)[:5]}"
        assert pods(steady) == before
        steady.deploy("after-core", 'def handle(event, context):\n    return "new"\n')
        assert steady.call("/function/after-core").body == b"new"
        steady.faas("delete", "after-core")

    def test_node_agent(self, steady: Any, load: Any, wait_until: Callable[..., Any]) -> None:
        """Its Pods keep serving with the process ids that they had, and are found again."""
        before, who, restarts = pods(steady), answering(steady), steady.restarts("node-1")
        with load(steady.url + "/function/steady") as running:
            running.wait(20)
            since = kill(steady, "node-1")
            back(steady, "node-1", restarts, since, wait_until)
            running.wait(50)
        assert running.failed == []
        assert pods(steady) == before and answering(steady) == who
        steady.faas("scale", "steady", "--min", "3")
        wait_until("a third instance", lambda: len(pods(steady)) == 3)
        steady.faas("scale", "steady", "--min", "2")

    def test_jobs(self, steady: Any, load: Any, wait_until: Callable[..., Any]) -> None:
        """No call fails, and an accepted call is not lost."""
        restarts = steady.restarts("jobs")
        with load(steady.url + "/function/steady") as running:
            calls = [
                steady.call("/async-function/steady?pause=0.2", b"", method="POST").json["callId"] for _ in range(20)
            ]
            since = kill(steady, "jobs")
            back(steady, "jobs", restarts, since, wait_until)
            running.wait(30)
        assert running.failed == []

        def succeeded() -> bool:
            records = [steady.faas("calls", "list", "--limit", "100", "-o", "json").json][0]
            return set(calls) <= {each["id"] for each in records if each["status"] == "Succeeded"}

        wait_until("every accepted call", succeeded)

    def test_gateway_worker(self, steady: Any, load: Any, wait_until: Callable[..., Any]) -> None:
        """Only what was in flight on it fails; the other worker and the backlog serve on."""
        restarts = steady.restarts("gateway-1")
        clients = 6
        with load(steady.url + "/function/steady", clients=clients) as running:
            running.wait(30)
            since = kill(steady, "gateway-1")
            took = back(steady, "gateway-1", restarts, since, wait_until)
            running.wait(50)
        assert all(status == 0 for _, status, _ in running.failed), running.failed
        assert len(running.failed) <= clients, running.failed
        late = [each for each in running.failed if each[0] > since + took]
        assert not late, f"calls failed that began after it was back: {late}"

    def test_sandboxer(self, steady: Any, wait_until: Callable[..., Any]) -> None:
        """Its Pods end with it; they come back, and calls are answered again within seconds."""
        restarts = steady.restarts("sandboxer-1")
        since = kill(steady, "sandboxer-1")
        back(steady, "sandboxer-1", restarts, since, wait_until)
        wait_until("answers", lambda: steady.call("/function/steady").status == 200, 10)
        assert time.monotonic() - since < 15
        wait_until("two instances", lambda: len(pods(steady)) == 2, 20)
        assert all(steady.call("/function/steady").status == 200 for _ in range(20))

    def test_one_instance(self, steady: Any, wait_until: Callable[..., Any]) -> None:
        """A function's process that dies is restarted, and the other one answers meanwhile."""
        pid = wait_until("an instance's process", lambda: function_processes(steady))[0]
        os.kill(pid, signal.SIGKILL)
        wait_until(
            "the restart", lambda: sum(count for _, count in pods(steady).values()) >= 1 and len(pods(steady)) == 2
        )
        assert all(steady.call("/function/steady").status == 200 for _ in range(10))


def function_processes(platform: Any) -> list[int]:
    """Process ids, as this machine has them, of the function's instances: those that listen on their addresses."""
    import psutil

    wanted = {address for address, _ in pods(platform).values()}
    return [
        each.pid
        for each in psutil.net_connections("tcp")
        if each.status == psutil.CONN_LISTEN and each.laddr.ip in wanted and each.pid
    ]


class TestSupervisor:
    CRON = 'def handle(event, context):\n    return "x"\n'

    def test_killed_alone_it_takes_everything_with_it(self, platforms: Any, wait_until: Callable[..., Any]) -> None:
        """Nothing runs on without it, and `faas up` starts over as if it had been stopped."""
        own = platforms()
        status = own.up()
        own.deploy("survivor", CODE)
        own.remember()
        os.kill(status["pid"], signal.SIGKILL)
        wait_until("the end of all processes", lambda: not own.leftovers().get("processes"), 20)
        own.faas("status", check=False).fails("not running", "faas up", code=4)
        own.up()
        assert own.call("/function/survivor").status == 200
        own.down()

    def test_everything_killed_at_once_is_cleaned_up_by_the_next_up(self, platforms: Any) -> None:
        own = platforms()
        status = own.up()
        own.deploy("survivor", CODE, "--min", "2")
        own.remember()
        os.kill(status["pid"], signal.SIGSTOP)  # so that it can't start again what is killed before it
        for each in (*(row["pid"] for row in status["components"]), status["pid"]):
            os.kill(each, signal.SIGKILL)
        own.up()
        assert own.call("/function/survivor").status == 200
        own.down()
        assert not [line for line in own.noise() if "Traceback" in line or "Exception" in line], own.noise()
