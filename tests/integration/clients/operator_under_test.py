"""A kopf operator as users write them: handlers of creation, change and deletion, a timer and a daemon."""

from __future__ import annotations

from typing import Any

import kopf

GROUP = "kopf.example.dev"


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    settings.posting.level = 20
    settings.watching.server_timeout = 30


@kopf.on.create(GROUP, "v1", "gadgets")
def created(
    spec: dict[str, Any], name: str, namespace: str, patch: kopf.Patch, body: kopf.Body, **_: Any
) -> dict[str, Any]:
    if spec.get("size", 0) > 100:
        raise kopf.PermanentError("too large")
    kopf.info(body, reason="Made", message=f"size {spec['size']}")
    patch.status["phase"] = "Made"
    return {"size": spec["size"]}


@kopf.on.field(GROUP, "v1", "gadgets", field="spec.size")
def resized(old: int | None, new: int | None, patch: kopf.Patch, **_: Any) -> None:
    if old is not None:
        patch.status["resized"] = f"{old} to {new}"


@kopf.on.delete(GROUP, "v1", "gadgets")
def deleted(**_: Any) -> None:
    pass


@kopf.timer(GROUP, "v1", "gadgets", interval=0.3)
def tick(status: dict[str, Any], patch: kopf.Patch, **_: Any) -> None:
    if status.get("ticks", 0) < 2:
        patch.status["ticks"] = status.get("ticks", 0) + 1


@kopf.daemon(GROUP, "v1", "gadgets", cancellation_timeout=2.0)
async def watch_over(stopped: kopf.DaemonStopped, body: kopf.Body, **_: Any) -> None:
    kopf.info(body, reason="Watched", message="the daemon runs")
    await stopped.wait()
