"""Rules of ReplicaSets: defaults, selector and template that agree, a selector that never changes."""

from __future__ import annotations

from core.api.selectors import from_label_selector
from core.apiserver.registry.pod_defaults import complete_pod_spec
from core.apiserver.registry.pod_validation import validate_template
from core.apiserver.registry.pods import text
from core.apiserver.registry.strategy import Cause, Document, Strategy
from core.apiserver.status import immutable, invalid_value, required

__all__ = ["ReplicaSetStrategy", "selector_text"]

_NOT_NEGATIVE = "must be greater than or equal to 0"


_REPLICA_SET_FIELDS = {"status.replicas": text("status", "replicas")}


class ReplicaSetStrategy(Strategy):
    generation = True
    fields = _REPLICA_SET_FIELDS

    def prepare_create(self, document: Document, now: float) -> None:
        document["status"] = {"replicas": 0}

    def complete(self, document: Document) -> None:
        spec = document.setdefault("spec", {})
        if spec.get("replicas") is None:
            spec["replicas"] = 1
        template = spec.get("template")
        if isinstance(template, dict):
            template.setdefault("metadata", {}).pop("creationTimestamp", None)
            complete_pod_spec(template.setdefault("spec", {}))
            labels = template["metadata"].get("labels")
            # Without a selector, apps/v1 refuses; a label is all that the oldest clients say.
            if labels and not document["metadata"].get("labels"):
                document["metadata"]["labels"] = dict(labels)

    def validate(self, document: Document) -> list[Cause]:
        spec = document["spec"]
        found = [
            invalid_value(f"spec.{key}", spec[key], _NOT_NEGATIVE)
            for key in ("replicas", "minReadySeconds")
            if (spec.get(key) or 0) < 0
        ]
        template, selector = spec.get("template"), spec.get("selector")
        if not selector:
            found.append(required("spec.selector"))
        if not template:
            return [*found, required("spec.template")]
        if selector:
            found += self._agree(selector, template)
        return found + validate_template(template, "spec.template")

    def _agree(self, selector: Document, template: Document) -> list[Cause]:
        try:
            parsed = from_label_selector(selector)
        except (KeyError, ValueError) as error:
            return [invalid_value("spec.selector", selector, str(error))]
        if not parsed:
            return [invalid_value("spec.selector", selector, "empty selector is invalid for deployment")]
        labels = (template.get("metadata") or {}).get("labels") or {}
        if not parsed.matches(labels):
            return [
                invalid_value("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
            ]
        return []

    def validate_update(self, new: Document, old: Document) -> list[Cause]:
        if new["spec"].get("selector") != old["spec"].get("selector"):
            return [immutable("spec.selector", new["spec"].get("selector"))]
        return []

    def validate_status(self, new: Document, old: Document) -> list[Cause]:
        status = new.get("status") or {}
        return [
            invalid_value(f"status.{key}", status[key], _NOT_NEGATIVE)
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
