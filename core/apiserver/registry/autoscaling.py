"""Rules of HorizontalPodAutoscalers, and version 1 of them as a view of the stored version 2."""

from __future__ import annotations

from typing import Any

import msgspec

from core.api.kinds import HORIZONTAL_POD_AUTOSCALER
from core.apiserver.registry.conversion import Conversion
from core.apiserver.registry.strategy import Cause, Document, Strategy
from core.apiserver.status import invalid_value, not_supported, required

__all__ = ["HPA_V1", "AutoscalerStrategy"]

# What version 1 has no field for is kept in annotations (k8s.io/kubernetes/pkg/apis/autoscaling/annotations.go).
_METRICS = "autoscaling.alpha.kubernetes.io/metrics"
_BEHAVIOR = "autoscaling.alpha.kubernetes.io/behavior"
_CURRENT = "autoscaling.alpha.kubernetes.io/current-metrics"
_CONDITIONS = "autoscaling.alpha.kubernetes.io/conditions"
_SOURCES = {
    "Resource": "resource", "ContainerResource": "containerResource", "Pods": "pods", "Object": "object", "External": "external",
}  # fmt: skip
_USED = 80
"""Per cent of the requested CPU that an autoscaler without metrics aims at, in either version."""
_encode = msgspec.json.encode


def _cpu(target: int) -> Document:
    return {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": target}},
    }


def _is_cpu(metric: Document, part: str) -> bool:
    resource = metric.get("resource") or {}
    return resource.get("name") == "cpu" and (resource.get(part) or {}).get("averageUtilization") is not None


def _read(document: Document) -> Document:
    metadata, spec, status = document["metadata"], document.get("spec") or {}, document.get("status") or {}
    notes = dict(metadata.get("annotations") or {})
    metrics, current = list(spec.pop("metrics", None) or ()), list(status.pop("currentMetrics", None) or ())
    for kept, part, field, into in (
        (metrics, "target", "targetCPUUtilizationPercentage", spec),
        (current, "current", "currentCPUUtilizationPercentage", status),
    ):
        cpu = next((each for each in kept if _is_cpu(each, part)), None)
        if cpu is not None:
            kept.remove(cpu)
            into[field] = cpu["resource"][part]["averageUtilization"]
    for key, value in (
        (_METRICS, metrics), (_BEHAVIOR, spec.pop("behavior", None)), (_CURRENT, current),
        (_CONDITIONS, status.pop("conditions", None)),
    ):  # fmt: skip
        if value:
            notes[key] = _encode(value).decode()
    if notes:
        metadata["annotations"] = notes
    return document


def _kept(notes: Document, key: str, kind: type) -> Any:
    try:
        return msgspec.json.decode(notes.pop(key, "null"), type=kind | None)
    except msgspec.MsgspecError:
        return None


def _write(document: Document) -> Document:
    found = {**document, "metadata": dict(document["metadata"])}
    notes = dict(found["metadata"].get("annotations") or {})
    spec, status = dict(found.get("spec") or {}), dict(found.get("status") or {})
    metrics = _kept(notes, _METRICS, list) or []
    if (target := spec.pop("targetCPUUtilizationPercentage", None)) is not None:
        metrics.insert(0, _cpu(target))
    current = _kept(notes, _CURRENT, list) or []
    if (used := status.pop("currentCPUUtilizationPercentage", None)) is not None:
        current.insert(0, {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": used}}})
    for into, key, value in (
        (spec, "metrics", metrics or [_cpu(_USED)]), (spec, "behavior", _kept(notes, _BEHAVIOR, dict)), (status, "currentMetrics", current),
        (status, "conditions", _kept(notes, _CONDITIONS, list)),
    ):  # fmt: skip
        if value:
            into[key] = value
    found["spec"], found["status"] = spec, status
    if notes:
        found["metadata"]["annotations"] = notes
    else:
        found["metadata"].pop("annotations", None)
    return found


HPA_V1 = Conversion(HORIZONTAL_POD_AUTOSCALER, _read, _write)


class AutoscalerStrategy(Strategy):
    """Of both versions; what only one has is looked at where it is."""

    def prepare_create(self, document: Document, now: float) -> None:
        document["status"] = {"desiredReplicas": 0, "currentReplicas": 0}
        if self.kind.version == "v2":
            document["status"]["currentMetrics"] = None

    def complete(self, document: Document) -> None:
        spec = document.setdefault("spec", {})
        if spec.get("minReplicas") is None:
            spec["minReplicas"] = 1
        if self.kind.version == "v2":
            if not spec.get("metrics"):
                spec["metrics"] = [_cpu(_USED)]
            self._behavior(spec.get("behavior"))

    def _behavior(self, behavior: Document | None) -> None:
        if behavior is None:
            return
        per_pods, percent = (
            {"type": "Pods", "value": 4, "periodSeconds": 15},
            {"type": "Percent", "value": 100, "periodSeconds": 15},
        )
        up = {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [per_pods, percent]}
        down = {"selectPolicy": "Max", "policies": [percent]}
        behavior["scaleUp"] = {**up, **(behavior.get("scaleUp") or {})}
        behavior["scaleDown"] = {**down, **(behavior.get("scaleDown") or {})}

    def validate(self, document: Document) -> list[Cause]:
        spec = document["spec"]
        low, high = spec["minReplicas"], spec.get("maxReplicas") or 0
        found = []
        if low < 1:
            found.append(invalid_value("spec.minReplicas", low, "must be greater than or equal to 1"))
        if high < 1:
            found.append(invalid_value("spec.maxReplicas", high, "must be greater than 0"))
        elif high < low:
            found.append(invalid_value("spec.maxReplicas", high, "must be greater than or equal to `minReplicas`"))
        target = spec.get("scaleTargetRef") or {}
        found += [required(f"spec.scaleTargetRef.{key}") for key in ("kind", "name") if not target.get(key)]
        for index, metric in enumerate(spec.get("metrics") or ()):
            at, kind = f"spec.metrics[{index}]", metric.get("type") or ""
            if kind not in _SOURCES:
                found.append(
                    not_supported(f"{at}.type", kind, sorted(_SOURCES))
                    if kind
                    else required(f"{at}.type", "must specify a metric source type")
                )
            elif metric.get(_SOURCES[kind]) is None:
                found.append(
                    required(f"{at}.{_SOURCES[kind]}", "must populate information for the given metric source")
                )
        percent = spec.get("targetCPUUtilizationPercentage")
        if percent is not None and percent < 1:
            found.append(invalid_value("spec.targetCPUUtilizationPercentage", percent, "must be greater than 0"))
        return found
