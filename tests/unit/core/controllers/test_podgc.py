from __future__ import annotations

from collections.abc import Callable

from core.api.views import Pod
from core.controllers.podgc import excess, orphans, unscheduled_terminating

MakePod = Callable[..., Pod]
GOING = {"deletionTimestamp": "2024-01-01T00:00:00Z"}


def test_the_oldest_terminated_pods_go_first(pod: MakePod) -> None:
    pods = [
        pod(f"p{day}", status={"phase": "Failed"}, meta={"creationTimestamp": f"2024-01-0{day}T00:00:00Z"})
        for day in (3, 1, 2)
    ]
    assert [each.name for each in excess([*pods, pod("lives")], 1)] == ["p1", "p2"]
    assert excess(pods, 3) == []


def test_pods_of_nodes_that_are_gone(pod: MakePod) -> None:
    pods = [pod("a", nodeName="here"), pod("b", nodeName="gone"), pod("c")]
    assert [each.name for each in orphans(pods, {"here"})] == ["b"]


def test_terminating_pods_without_a_node(pod: MakePod) -> None:
    pods = [pod("a", meta=GOING), pod("b", meta=GOING, nodeName="n"), pod("c")]
    assert [each.name for each in unscheduled_terminating(pods)] == ["a"]
