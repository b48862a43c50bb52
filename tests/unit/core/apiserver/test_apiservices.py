"""Which APIServices there are to be."""

from __future__ import annotations

from core.api.kinds import BUILT_IN, Kind
from core.apiserver.apiservices import AUTO_MANAGED, wanted


def test_one_for_each_group_and_version():
    widget = Kind("shop.example.com", "v1", "Widget", "widgets")
    found = wanted([*BUILT_IN, widget, Kind("shop.example.com", "v1", "Gadget", "gadgets")])
    assert len(found) == len({(each.group, each.version) for each in BUILT_IN}) + 1
    assert found["v1."]["spec"] == {"version": "v1", "groupPriorityMinimum": 18000, "versionPriority": 1}
    assert found["v2.autoscaling"]["spec"]["versionPriority"] > found["v1.autoscaling"]["spec"]["versionPriority"]
    assert found["v1.apps"]["metadata"]["labels"] == {AUTO_MANAGED: "onstart"}
    own = found["v1.shop.example.com"]
    assert own["metadata"]["labels"] == {AUTO_MANAGED: "true"}
    assert own["spec"] == {"group": "shop.example.com", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 100}  # fmt: skip


def test_metrics_come_last_so_that_pods_are_pods():
    found = wanted(BUILT_IN)
    lowest = min(found.values(), key=lambda each: each["spec"]["groupPriorityMinimum"])
    assert lowest["metadata"]["name"] == "v1beta1.metrics.k8s.io"
