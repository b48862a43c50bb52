"""What the gateway reads of a Function."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from core.api.views import Condition, ObjectView

__all__ = ["Function", "FunctionSpec", "FunctionStatus", "Http", "TrafficTarget"]


class TrafficTarget(Struct, rename="camel", kw_only=True, omit_defaults=True):
    """One resolved row of `status.traffic`. `concurrency` is the limit per instance (0: none), `timeout` seconds."""

    revision: str
    percent: int = 100
    concurrency: int = 0
    timeout: float = 0.0


class Http(Struct, rename="camel", kw_only=True, omit_defaults=True):
    visibility: str = "public"
    routes: list[dict[str, Any]] = []


class FunctionSpec(Struct, rename="camel", kw_only=True, omit_defaults=True):
    http: Http = field(default_factory=Http)


class FunctionStatus(Struct, rename="camel", kw_only=True, omit_defaults=True):
    traffic: list[TrafficTarget] = []
    conditions: list[Condition] = []


class Function(ObjectView):
    spec: FunctionSpec = field(default_factory=FunctionSpec)
    status: FunctionStatus = field(default_factory=FunctionStatus)

    @property
    def ready(self) -> Condition | None:
        """The condition Ready, if the controller has said anything yet."""
        return next((each for each in self.status.conditions if each.type == "Ready"), None)
