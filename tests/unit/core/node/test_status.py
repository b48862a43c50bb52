"""What a Pod's status says of containers that no node runs."""

from __future__ import annotations

from typing import Any

import msgspec

from core.api import views
from core.node import lifecycle
from core.node.status import NO_EPHEMERAL, pod_status


def status(**spec: Any) -> dict[str, Any]:
    pod = msgspec.convert(
        {"metadata": {"name": "p", "uid": "u"}, "spec": {"containers": [{"name": "a"}], **spec}}, views.Pod
    )
    return pod_status(lifecycle.observe(pod), [], now=1000.0, host_ip="127.0.0.1", runtime="fake")


def test_ephemeral_containers_have_ended_and_say_why() -> None:
    found = status(ephemeralContainers=[{"name": "debugger", "image": "busybox", "targetContainerName": "a"}])
    (shown,) = found["ephemeralContainerStatuses"]
    assert (shown["name"], shown["image"], shown["ready"]) == ("debugger", "busybox", False)
    assert shown["state"] == {"terminated": {"exitCode": 128, "reason": "NotSupported", "message": NO_EPHEMERAL}}
    assert [each["name"] for each in found["containerStatuses"]] == ["a"]
    assert "ephemeralContainerStatuses" not in status()
