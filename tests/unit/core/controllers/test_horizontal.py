"""The HorizontalPodAutoscaler controller against the real API server; what Pods use is made up."""

from __future__ import annotations

from typing import Any

import pytest

from core.api.kinds import (
    DEPLOYMENT,
    HORIZONTAL_POD_AUTOSCALER,
    HORIZONTAL_POD_AUTOSCALER_V1,
    POD,
    POD_METRICS,
    REPLICA_SET,
    REPLICATION_CONTROLLER,
    STATEFUL_SET,
)
from core.api.views import HorizontalPodAutoscaler, Pod
from core.apiserver.authn import User
from core.client.rest import Client
from core.clock import timestamp
from core.controllers.horizontal import HorizontalController


class Measuring(Client):
    """Every Pod of the namespace uses 80 thousandths of a core."""

    async def list(self, kind: Any, namespace: str = "", **more: Any) -> Any:
        if kind != POD_METRICS:
            return await super().list(kind, namespace, **more)
        pods, version = await super().list(POD, namespace, labels=more["labels"], as_=Pod)
        usage = {"cpu": "80m", "memory": "1Mi"}
        found = [
            {"metadata": {"name": each.name}, "timestamp": timestamp(), "window": "0s", "containers": [{"name": "c", "usage": usage}]}
            for each in pods
        ]  # fmt: skip
        return found, version


TEMPLATE = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "100m"}}}]}}  # fmt: skip


def workload(kind: Any, name: str = "w") -> dict[str, Any]:
    selector = {"app": "a"} if kind == REPLICATION_CONTROLLER else {"matchLabels": {"app": "a"}}
    extra = {"serviceName": "s"} if kind == STATEFUL_SET else {}
    return {"metadata": {"name": name}, "spec": {"replicas": 1, "selector": selector, "template": TEMPLATE, **extra}}


def autoscaler(kind: Any, name: str = "h", **spec: Any) -> dict[str, Any]:
    target = {"apiVersion": kind.api_version, "kind": kind.kind, "name": "w"}
    return {"metadata": {"name": name}, "spec": {"scaleTargetRef": target, "maxReplicas": 5, **spec}}


async def one_pod(plane: Any) -> None:
    await plane.client.create(POD, {"metadata": {"name": "p", **TEMPLATE["metadata"]}, "spec": TEMPLATE["spec"]}, "default")  # fmt: skip
    await plane.pod_ready("p", startTime=timestamp())


async def controller(plane: Any) -> None:
    client = Measuring(plane.api.local(User("admin", ("system:masters",))))
    await plane.run(HorizontalController(client, plane.informers))


@pytest.mark.parametrize("kind", [DEPLOYMENT, REPLICA_SET, STATEFUL_SET, REPLICATION_CONTROLLER])
async def test_what_has_replicas_is_scaled(plane: Any, kind: Any) -> None:
    seen = await plane.see(HORIZONTAL_POD_AUTOSCALER, HorizontalPodAutoscaler)
    await plane.client.create(kind, workload(kind), "default")
    await one_pod(plane)
    await controller(plane)
    v1 = autoscaler(kind, targetCPUUtilizationPercentage=40)
    await plane.client.create(HORIZONTAL_POD_AUTOSCALER_V1, v1, "default")
    await plane.until(lambda: (seen.get("default/h") or HorizontalPodAutoscaler()).status.get("desiredReplicas") == 2)
    found = await plane.client.get(kind, "w", "default")
    assert found["spec"]["replicas"] == 2
    old = await plane.client.get(HORIZONTAL_POD_AUTOSCALER_V1, "h", "default")
    assert old["status"]["currentCPUUtilizationPercentage"] == 80 and old["status"]["lastScaleTime"]


async def test_a_target_that_isnt_there_and_a_kind_that_isnt_served(plane: Any) -> None:
    seen = await plane.see(HORIZONTAL_POD_AUTOSCALER, HorizontalPodAutoscaler)
    await controller(plane)
    await plane.client.create(HORIZONTAL_POD_AUTOSCALER, autoscaler(DEPLOYMENT), "default")
    unknown = autoscaler(DEPLOYMENT, "unknown")
    unknown["spec"]["scaleTargetRef"]["kind"] = "Nothing"
    await plane.client.create(HORIZONTAL_POD_AUTOSCALER, unknown, "default")

    def said(name: str) -> list[Any]:
        found = seen.get(f"default/{name}")
        return found.status.get("conditions") or [] if found else []

    await plane.until(lambda: said("h") and said("unknown"))
    assert said("h")[0]["message"].endswith('current scale: deployments.apps "w" not found')
    assert said("unknown")[0]["message"].endswith('no matches for kind "Nothing" in group "apps"')
    assert {(each["type"], each["status"], each["reason"]) for each in said("h")} == {
        ("AbleToScale", "False", "FailedGetScale")
    }


async def test_two_autoscalers_of_the_same_pods_do_nothing(plane: Any) -> None:
    seen = await plane.see(HORIZONTAL_POD_AUTOSCALER, HorizontalPodAutoscaler)
    await plane.client.create(DEPLOYMENT, workload(DEPLOYMENT), "default")
    await one_pod(plane)
    await plane.synced()
    its = HorizontalController(plane.client, plane.informers)
    for name in ("h", "i"):
        await plane.client.create(HORIZONTAL_POD_AUTOSCALER, autoscaler(DEPLOYMENT, name), "default")
    await plane.synced()
    await plane.until(lambda: len(seen.values()) == 2)
    await plane.settle()
    for key in ("default/h", "default/i", "default/h"):
        await its.sync(key)
    await plane.until(lambda: any(each["reason"] == "AmbiguousSelector" for each in seen.get("default/h").status.get("conditions", ())))  # fmt: skip
    await its.stop()
