"""Rules of ReplicaSets: defaults, selector and template that agree, a selector that never changes."""

from __future__ import annotations

from core.apiserver.registry.pods import text
from core.apiserver.registry.strategy import Cause, Document, Strategy
from core.apiserver.registry.templates import (
    NOT_NEGATIVE,
    check_amounts,
    complete_template,
    selector_immutable,
    validate_workload,
)
from core.apiserver.status import invalid_value

__all__ = ["ReplicaSetStrategy", "selector_text"]

_REPLICA_SET_FIELDS = {"status.replicas": text("status", "replicas")}


class ReplicaSetStrategy(Strategy):
    generation = True
    fields = _REPLICA_SET_FIELDS
    narrow = ("scale",)

    def prepare_create(self, document: Document, now: float) -> None:
        document["status"] = {"replicas": 0}

    def repeatable(self, document: Document, what: str) -> bool:
        """Pods that come of a count that is lost go again, and who counts does so again."""
        return what == "scale"

    def complete(self, document: Document) -> None:
        spec = document.setdefault("spec", {})
        if spec.get("replicas") is None:
            spec["replicas"] = 1
        complete_template(spec.get("template"))

    def validate(self, document: Document) -> list[Cause]:
        spec = document["spec"]
        return check_amounts(spec, "replicas", "minReadySeconds") + validate_workload(spec, "deployment")

    def validate_update(self, new: Document, old: Document) -> list[Cause]:
        return selector_immutable(new, old)

    def validate_status(self, new: Document, old: Document) -> list[Cause]:
        status = new.get("status") or {}
        return [
            invalid_value(f"status.{key}", status[key], NOT_NEGATIVE)
            for key in ("replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration")
            if (status.get(key) or 0) < 0
        ]


def selector_text(selector: Document | None) -> str:
    """A label selector in its query form, as `Scale.status.selector` has it."""
    parts = [f"{key}={value}" for key, value in sorted(((selector or {}).get("matchLabels") or {}).items())]
    for each in (selector or {}).get("matchExpressions") or ():
        key, values = each.get("key"), ",".join(sorted(each.get("values") or ()))
        match each.get("operator"):
            case "In":
                parts.append(f"{key} in ({values})")
            case "NotIn":
                parts.append(f"{key} notin ({values})")
            case "Exists":
                parts.append(f"{key}")
            case "DoesNotExist":
                parts.append(f"!{key}")
    return ",".join(parts)
