"""The table of transitions, row by row: what is observed -> what follows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from core.api import views
from core.node import lifecycle
from core.node.backoff import pull_delay, restart_delay
from core.node.lifecycle import DeleteObject, EnsureSandbox, Fail, Forget, Observed, RemoveSandbox, Start, Stop, Waiting
from core.node.runtime.base import ContainerInfo, ContainerState

NOW = 1000.0


def world(sandbox: str = "s", **spec: Any) -> Observed:
    spec.setdefault("containers", [{"name": "a"}])
    found = lifecycle.observe(msgspec.convert({"metadata": {"name": "p", "uid": "u"}, "spec": spec}, views.Pod))
    found.sandbox_id, found.start_time = sandbox, NOW - 5
    return found


def put(observed: Observed, name: str, state: ContainerState, code: int | None = None, at: float = NOW) -> Observed:
    record = observed.containers[name]
    record.info = ContainerInfo(
        name, name, "s", state, attempt=record.attempt, started_at=at - 1, finished_at=at, exit_code=code
    )
    record.started = record.ready = state is ContainerState.RUNNING
    return observed


RUNNING, EXITED = ContainerState.RUNNING, ContainerState.EXITED


def deleted(observed: Observed, in_: float) -> Observed:
    observed.kill_by = NOW + in_
    return observed


@pytest.mark.parametrize(
    ("observed", "row", "actions", "wake"),
    [
        (world(""), "prepare", (EnsureSandbox(),), None),
        (world(), "run", (Start("a", 0),), None),
        (world(containers=[{"name": "a"}, {"name": "b"}]), "run", (Start("a", 0), Start("b", 0)), None),
        (put(world(), "a", RUNNING), "run", (), None),
        (put(world(), "a", EXITED, 1), "run", (Start("a", 1),), None),
        (put(world(restartPolicy="OnFailure"), "a", EXITED, 1), "run", (Start("a", 1),), None),
        (put(world(restartPolicy="OnFailure"), "a", EXITED, 0), "dismantle", (RemoveSandbox(),), None),
        (put(world(restartPolicy="Never"), "a", EXITED, 1), "dismantle", (RemoveSandbox(),), None),
        (put(world("", restartPolicy="Never"), "a", EXITED, 1), "ended", (), None),
        (world(initContainers=[{"name": "i"}]), "init", (Start("i", 0),), None),
        (put(world(initContainers=[{"name": "i"}]), "i", RUNNING), "init", (), None),
        (put(world(initContainers=[{"name": "i"}]), "i", EXITED, 0), "run", (Start("a", 0),), None),
        (put(world(initContainers=[{"name": "i"}]), "i", EXITED, 1), "init", (Start("i", 1),), None),
        (put(world(initContainers=[{"name": "i"}], restartPolicy="Never"), "i", EXITED, 1), "dismantle", (RemoveSandbox(),), None),
        (world(initContainers=[{"name": "i", "restartPolicy": "Always"}]), "sidecar", (Start("i", 0),), None),
        (put(world(initContainers=[{"name": "i", "restartPolicy": "Always"}]), "i", RUNNING), "run", (Start("a", 0),), None),
        (put(world(activeDeadlineSeconds=60), "a", RUNNING), "run", (), NOW + 55),
        (
            put(world(activeDeadlineSeconds=5), "a", RUNNING),
            "deadline",
            (Fail("DeadlineExceeded", "Pod was active on the node longer than the specified deadline"),),
            None,
        ),
        (deleted(put(world(), "a", RUNNING), 30), "stop", (Stop(("a",), 30.0, "Killing"),), None),
        (deleted(put(world(), "a", RUNNING), -5), "stop", (Stop(("a",), 0.0, "Killing"),), None),
        (deleted(put(world(), "a", EXITED, 0), 30), "dismantle", (RemoveSandbox(),), None),
        (deleted(world(""), 30), "delete", (DeleteObject(),), None),
    ],
)  # fmt: skip
def test_row(observed: Observed, row: str, actions: tuple[Any, ...], wake: float | None) -> None:
    plan = lifecycle.decide(observed, NOW)
    assert (plan.row, plan.actions, plan.wake_at) == (row, actions, wake)


def test_gone_pods_are_dismantled_and_forgotten() -> None:
    observed = put(world(), "a", RUNNING)
    observed.gone = True
    assert lifecycle.decide(observed, NOW).actions == (RemoveSandbox(),)
    observed.sandbox_id = ""
    assert lifecycle.decide(observed, NOW).actions == (Forget(),)


def test_sidecars_are_stopped_when_the_work_is_done() -> None:
    observed = world(initContainers=[{"name": "i", "restartPolicy": "Always"}], restartPolicy="Never")
    put(put(observed, "i", RUNNING), "a", EXITED, 0)
    assert lifecycle.phase(observed) == "Succeeded"
    assert lifecycle.decide(observed, NOW).actions == (Stop(("i",), 30.0, "Killing"),)


def test_unhealthy_container_is_stopped_with_its_probes_grace() -> None:
    observed = put(
        world(containers=[{"name": "a", "livenessProbe": {"terminationGracePeriodSeconds": 3}}]), "a", RUNNING
    )
    observed.containers["a"].kill = "why"
    assert lifecycle.decide(observed, NOW).actions == (Stop(("a",), 3.0, "why"),)


def test_restarts_back_off_and_the_timer_is_set() -> None:
    observed = put(world(), "a", EXITED, 1)
    record = observed.containers["a"]
    delays = []
    for _ in range(8):
        plan = lifecycle.decide(observed, NOW)
        delays.append((plan.wake_at or NOW) - NOW)
        lifecycle.restored(record)
        put(observed, "a", EXITED, 1)
    assert delays == [0, 10, 20, 40, 80, 160, 300, 300]
    assert record.attempt == 8


def test_ten_minutes_of_running_forgive() -> None:
    observed = put(world(), "a", EXITED, 1)
    record = observed.containers["a"]
    record.crashes = 5
    assert record.info is not None
    record.info = replace(record.info, started_at=NOW - 601)
    lifecycle.restored(record)
    assert record.crashes == 0


def test_waiting_containers_are_tried_when_it_is_time() -> None:
    observed = world()
    observed.containers["a"].waiting = Waiting("ErrImagePull", "", NOW + 10, 1)
    plan = lifecycle.decide(observed, NOW)
    assert (plan.actions, plan.wake_at) == ((), NOW + 10)
    assert lifecycle.decide(observed, NOW + 10).actions == (Start("a", 0),)


def test_lost_sandbox_counts_as_an_exit() -> None:
    observed = put(world(initContainers=[{"name": "i"}]), "a", RUNNING)
    put(observed, "i", EXITED, 0)
    lifecycle.lose_sandbox(observed, NOW)
    assert lifecycle.decide(observed, NOW).actions == (EnsureSandbox(),)
    observed.sandbox_id = "s2"
    assert lifecycle.decide(observed, NOW).actions == (Start("i", 0),)
    put(observed, "i", EXITED, 0)
    assert lifecycle.decide(observed, NOW).actions == (Start("a", 1),)
    assert observed.containers["a"].info is not None and observed.containers["a"].info.exit_code == 137


@pytest.mark.parametrize(
    ("codes", "policy", "phase"),
    [((0, 0), "Never", "Succeeded"), ((0, 1), "Never", "Failed"), ((0, 0), "Always", "Running"), ((0, 1), "OnFailure", "Running"), ((0, None), "Never", "Running")],
)  # fmt: skip
def test_phase(codes: tuple[int | None, ...], policy: str, phase: str) -> None:
    observed = world(containers=[{"name": "a"}, {"name": "b"}], restartPolicy=policy)
    for name, code in zip("ab", codes, strict=True):
        put(observed, name, RUNNING if code is None else EXITED, code)
    assert lifecycle.phase(observed) == phase


def test_a_phase_that_is_final_stays() -> None:
    pod = msgspec.convert({"spec": {"containers": [{"name": "a"}]}, "status": {"phase": "Succeeded"}}, views.Pod)
    observed = lifecycle.observe(pod)
    assert lifecycle.decide(observed, NOW).row == "ended"


def test_delays() -> None:
    assert [restart_delay(each) for each in range(4)] == [0, 10, 20, 40]
    assert restart_delay(10_000) == 300
    assert pull_delay(1) == 10
