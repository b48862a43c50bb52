"""The scheduling queue, with time as an argument."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from core.api.views import Pod
from core.scheduler.framework import ClusterEvent
from core.scheduler.queue import LONGEST_WAIT, SchedulingQueue, backoff

MakePod = Callable[..., Pod]
FIT = frozenset({"Fit"})


@pytest.fixture
def queue() -> SchedulingQueue:
    return SchedulingQueue(
        {"Fit": frozenset({ClusterEvent.POD_REMOVED}), "Taint": frozenset({ClusterEvent.NODE_CHANGED})}
    )


def popped(queue: SchedulingQueue, now: float) -> str | None:
    found = queue.pop(now)
    return found.pod.name if found else None


def test_by_priority_then_by_age(queue: SchedulingQueue, pod: MakePod) -> None:
    for at, (name, priority) in enumerate([("a", 0), ("b", 10), ("c", 0), ("d", 10)]):
        queue.add(pod(name, priority=priority), float(at))
    assert [popped(queue, 9.0) for _ in range(5)] == ["b", "d", "a", "c", None]


def test_backoff_doubles_to_ten_seconds() -> None:
    assert [backoff(each) for each in range(1, 7)] == [1, 2, 4, 8, 10, 10]


def test_an_unschedulable_pod_waits_for_an_event_and_its_backoff(queue: SchedulingQueue, pod: MakePod) -> None:
    queue.add(pod("a"), 0.0)
    found = queue.pop(0.0)
    assert found
    queue.park(found, 0.0, FIT)
    assert popped(queue, 5.0) is None
    assert queue.on_event(ClusterEvent.NODE_CHANGED, 0.2) == 0
    assert queue.on_event(ClusterEvent.POD_REMOVED, 0.2) == 1
    assert popped(queue, 0.9) is None
    assert queue.next_at() == 1.0
    assert popped(queue, 1.0) == "a"


def test_an_event_after_the_backoff_lets_it_go_at_once(queue: SchedulingQueue, pod: MakePod) -> None:
    queue.add(pod("a"), 0.0)
    found = queue.pop(0.0)
    assert found
    queue.park(found, 0.0, FIT)
    queue.on_event(ClusterEvent.POD_REMOVED, 3.0)
    assert popped(queue, 3.0) == "a"


def test_a_plugin_that_is_not_known_is_helped_by_everything(queue: SchedulingQueue, pod: MakePod) -> None:
    queue.add(pod("a"), 0.0)
    found = queue.pop(0.0)
    assert found
    queue.park(found, 0.0, frozenset({"Other"}))
    assert queue.on_event(ClusterEvent.NODE_ADDED, 3.0) == 1


def test_a_closer_look_can_decline(queue: SchedulingQueue, pod: MakePod) -> None:
    queue.add(pod("a"), 0.0)
    found = queue.pop(0.0)
    assert found
    queue.park(found, 0.0, FIT)
    assert queue.on_event(ClusterEvent.POD_REMOVED, 3.0, lambda _: False) == 0


def test_a_refused_binding_is_tried_again_after_the_backoff(queue: SchedulingQueue, pod: MakePod) -> None:
    queue.add(pod("a"), 0.0)
    found = queue.pop(0.0)
    assert found
    queue.retry(found, 0.0)
    assert popped(queue, 0.5) is None
    again = queue.pop(1.0)
    assert again
    queue.retry(again, 1.0)
    assert queue.next_at() == 3.0


def test_a_status_update_does_not_wake_but_a_changed_spec_does(queue: SchedulingQueue, pod: MakePod) -> None:
    queue.add(pod("a", cpu="2"), 0.0)
    found = queue.pop(0.0)
    assert found
    queue.park(found, 0.0, FIT)
    changed = pod("a", cpu="2")
    changed.status.message = "x"
    queue.add(changed, 5.0)
    assert popped(queue, 5.0) is None
    queue.add(pod("a", cpu="1"), 5.0)
    assert popped(queue, 5.0) == "a"


def test_a_removed_pod_never_comes_out(queue: SchedulingQueue, pod: MakePod) -> None:
    for name in "ab":
        queue.add(pod(name), 0.0)
    queue.remove("default/a")
    assert popped(queue, 0.0) == "b"
    queue.add(pod("c"), 0.0)
    found = queue.pop(0.0)
    assert found
    queue.retry(found, 0.0)
    queue.remove("default/c")
    assert queue.next_at() is None
    assert popped(queue, 100.0) is None
    assert len(queue) == 0


def test_removed_and_added_again_comes_out_once(queue: SchedulingQueue, pod: MakePod) -> None:
    queue.add(pod("a"), 0.0)
    queue.remove("default/a")
    queue.add(pod("a"), 1.0)
    assert [popped(queue, 2.0), popped(queue, 2.0)] == ["a", None]


def test_nothing_waits_for_ever(queue: SchedulingQueue, pod: MakePod) -> None:
    queue.add(pod("a"), 0.0)
    found = queue.pop(0.0)
    assert found
    queue.park(found, 0.0, FIT)
    assert queue.next_at() == LONGEST_WAIT
    assert popped(queue, LONGEST_WAIT) == "a"
