"""Rules of the long-running workloads: Deployments, StatefulSets, DaemonSets, ReplicationControllers and what belongs to them.

Defaults are those of https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Any

from core.apiserver.registry.names import check_labels
from core.apiserver.registry.pods import text
from core.apiserver.registry.storage import complete_claim
from core.apiserver.registry.strategy import Cause, Document, Strategy
from core.apiserver.registry.templates import (
    check_amounts,
    complete_template,
    selector_immutable,
    validate_restarting,
    validate_workload,
)
from core.apiserver.status import forbidden, invalid_value, not_supported, required

__all__ = [
    "ControllerRevisionStrategy", "DaemonSetStrategy", "DeploymentStrategy", "PodTemplateStrategy", "ReplicationControllerStrategy",
    "StatefulSetStrategy", "check_share",
]  # fmt: skip

_PERCENT = re.compile(r"[0-9]+%")
_PERCENT_WORDS = (
    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is "
    "'[0-9]+%')"
)
_HISTORY = 10


def check_share(value: Any, at: str) -> list[Cause]:
    """Causes in a number or percentage of replicas."""
    if isinstance(value, str):
        if not _PERCENT.fullmatch(value):
            return [invalid_value(at, value, _PERCENT_WORDS)]
    elif value is not None and value < 0:
        return [invalid_value(at, value, "must be greater than or equal to 0")]
    return []


def _percent_over(value: Any, at: str) -> list[Cause]:
    if isinstance(value, str) and _PERCENT.fullmatch(value) and int(value[:-1]) > 100:
        return [invalid_value(at, value, "must not be greater than 100%")]
    return []


def _zero(value: Any) -> bool:
    return value in (0, "0%")


class _Workload(Strategy):
    generation = True
    fields = MappingProxyType({"status.replicas": text("status", "replicas")})

    def complete(self, document: Document) -> None:
        spec = document.setdefault("spec", {})
        if spec.get("replicas") is None:
            spec["replicas"] = 1
        if spec.get("revisionHistoryLimit") is None:
            spec["revisionHistoryLimit"] = _HISTORY
        complete_template(spec.get("template"))

    def validate_update(self, new: Document, old: Document) -> list[Cause]:
        return selector_immutable(new, old)

    def validate_status(self, new: Document, old: Document) -> list[Cause]:
        counts = (
            "replicas", "readyReplicas", "updatedReplicas", "availableReplicas", "unavailableReplicas", "currentReplicas",
            "observedGeneration", "numberReady", "desiredNumberScheduled", "currentNumberScheduled", "numberMisscheduled",
        )  # fmt: skip
        return check_amounts(new.get("status") or {}, *counts, at="status")


class DeploymentStrategy(_Workload):
    def complete(self, document: Document) -> None:
        super().complete(document)
        spec = document["spec"]
        if spec.get("progressDeadlineSeconds") is None:
            spec["progressDeadlineSeconds"] = 600
        strategy = spec.setdefault("strategy", {})
        strategy["type"] = strategy.get("type") or "RollingUpdate"
        if strategy["type"] == "RollingUpdate":
            rolling = strategy["rollingUpdate"] = strategy.get("rollingUpdate") or {}
            for key in ("maxUnavailable", "maxSurge"):
                if rolling.get(key) is None:
                    rolling[key] = "25%"

    def validate(self, document: Document) -> list[Cause]:
        spec = document["spec"]
        found = check_amounts(spec, "replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds")
        found += validate_workload(spec, "deployment") + self._strategy(spec["strategy"])
        if spec["progressDeadlineSeconds"] <= (spec.get("minReadySeconds") or 0):
            why = "must be greater than minReadySeconds"
            found.append(invalid_value("spec.progressDeadlineSeconds", spec["progressDeadlineSeconds"], why))
        return found

    def _strategy(self, strategy: Document) -> list[Cause]:
        kind, rolling, at = strategy["type"], strategy.get("rollingUpdate"), "spec.strategy.rollingUpdate"
        if kind == "Recreate":
            if rolling is None:
                return []
            return [forbidden(at, "may not be specified when strategy `type` is 'Recreate'")]
        if kind != "RollingUpdate":
            return [not_supported("spec.strategy.type", kind, ("Recreate", "RollingUpdate"))]
        unavailable, surge = rolling["maxUnavailable"], rolling["maxSurge"]  # type: ignore[index]
        found = check_share(unavailable, f"{at}.maxUnavailable") + check_share(surge, f"{at}.maxSurge")
        if _zero(unavailable) and _zero(surge):
            found.append(invalid_value(f"{at}.maxUnavailable", unavailable, "may not be 0 when `maxSurge` is 0"))
        return found + _percent_over(unavailable, f"{at}.maxUnavailable")

    def spec_changed(self, new: Document, old: Document) -> bool:
        """A Deployment's annotations go to its ReplicaSets, so they count as well."""
        annotations = [each["metadata"].get("annotations") or {} for each in (new, old)]
        return super().spec_changed(new, old) or annotations[0] != annotations[1]


_STATEFUL_FREE = (
    "replicas", "ordinals", "template", "updateStrategy", "persistentVolumeClaimRetentionPolicy", "minReadySeconds",
)  # fmt: skip
_STATEFUL_WORDS = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
    "'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)


def _with_claims(spec: Document) -> Document:
    """With the volumes that its claims will be in a Pod: containers mount them by the claims' names."""
    template, claims = spec.get("template"), spec.get("volumeClaimTemplates")
    if not claims or not isinstance(template, dict):
        return spec
    names = [str((each.get("metadata") or {}).get("name") or "") for each in claims]
    pod = template.get("spec") or {}
    own = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in names]
    volumes = [*(each for each in pod.get("volumes") or () if each.get("name") not in names), *own]
    return {**spec, "template": {**template, "spec": {**pod, "volumes": volumes}}}


class StatefulSetStrategy(_Workload):
    def prepare_create(self, document: Document, now: float) -> None:
        document["status"] = {"replicas": 0, "availableReplicas": 0}

    def complete(self, document: Document) -> None:
        super().complete(document)
        spec = document["spec"]
        spec["podManagementPolicy"] = spec.get("podManagementPolicy") or "OrderedReady"
        update = spec.setdefault("updateStrategy", {})
        update["type"] = update.get("type") or "RollingUpdate"
        if update["type"] == "RollingUpdate":
            rolling = update["rollingUpdate"] = update.get("rollingUpdate") or {}
            if rolling.get("partition") is None:
                rolling["partition"] = 0
        kept = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
        for key in ("whenDeleted", "whenScaled"):
            kept[key] = kept.get(key) or "Retain"
        for claim in spec.get("volumeClaimTemplates") or ():
            claim["apiVersion"], claim["kind"] = "v1", "PersistentVolumeClaim"
            complete_claim(claim)

    def validate(self, document: Document) -> list[Cause]:
        spec = document["spec"]
        found = check_amounts(spec, "replicas", "minReadySeconds", "revisionHistoryLimit")
        if spec["podManagementPolicy"] not in ("OrderedReady", "Parallel"):
            why = "must be 'OrderedReady' or 'Parallel'"
            found.append(invalid_value("spec.podManagementPolicy", spec["podManagementPolicy"], why))
        update = spec["updateStrategy"]
        if update["type"] == "OnDelete":
            if update.get("rollingUpdate") is not None:
                why = "only allowed for updateStrategy 'RollingUpdate'"
                found.append(invalid_value("spec.updateStrategy.rollingUpdate", update["rollingUpdate"], why))
        elif update["type"] != "RollingUpdate":
            why = "must be 'RollingUpdate' or 'OnDelete'"
            found.append(invalid_value("spec.updateStrategy", update["type"], why))
        else:
            found += check_amounts(update["rollingUpdate"], "partition", at="spec.updateStrategy.rollingUpdate")
        for key, value in spec["persistentVolumeClaimRetentionPolicy"].items():
            if value not in ("Retain", "Delete"):
                at = f"spec.persistentVolumeClaimRetentionPolicy.{key}"
                found.append(not_supported(at, value, ("Delete", "Retain")))
        return found + validate_workload(_with_claims(spec), "statefulset")

    def validate_update(self, new: Document, old: Document) -> list[Cause]:
        kept = [{key: value for key, value in each["spec"].items() if key not in _STATEFUL_FREE} for each in (new, old)]
        return [] if kept[0] == kept[1] else [forbidden("spec", _STATEFUL_WORDS)]


class DaemonSetStrategy(_Workload):
    fields = MappingProxyType({})

    def prepare_create(self, document: Document, now: float) -> None:
        counts = ("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady")
        document["status"] = dict.fromkeys(counts, 0)

    def complete(self, document: Document) -> None:
        spec = document.setdefault("spec", {})
        if spec.get("revisionHistoryLimit") is None:
            spec["revisionHistoryLimit"] = _HISTORY
        complete_template(spec.get("template"))
        update = spec.setdefault("updateStrategy", {})
        update["type"] = update.get("type") or "RollingUpdate"
        if update["type"] == "RollingUpdate":
            rolling = update["rollingUpdate"] = update.get("rollingUpdate") or {}
            for key, value in (("maxUnavailable", 1), ("maxSurge", 0)):
                if rolling.get(key) is None:
                    rolling[key] = value

    def validate(self, document: Document) -> list[Cause]:
        spec = document["spec"]
        found = check_amounts(spec, "minReadySeconds", "revisionHistoryLimit") + validate_workload(spec, "daemonset")
        update, at = spec["updateStrategy"], "spec.updateStrategy.rollingUpdate"
        if update["type"] == "RollingUpdate":
            unavailable, surge = update["rollingUpdate"]["maxUnavailable"], update["rollingUpdate"]["maxSurge"]
            found += check_share(unavailable, f"{at}.maxUnavailable") + check_share(surge, f"{at}.maxSurge")
            if not _zero(unavailable) and not _zero(surge):
                found.append(invalid_value(f"{at}.maxSurge", surge, "may not be set when maxUnavailable is non-zero"))
            if _zero(unavailable) and _zero(surge):
                found.append(required(f"{at}.maxUnavailable", "cannot be 0 when maxSurge is 0"))
        elif update["type"] != "OnDelete":
            found.append(not_supported("spec.updateStrategy.type", update["type"], ("OnDelete", "RollingUpdate")))
        return found


class ReplicationControllerStrategy(Strategy):
    generation = True

    def prepare_create(self, document: Document, now: float) -> None:
        document["status"] = {"replicas": 0}

    def complete(self, document: Document) -> None:
        spec = document.setdefault("spec", {})
        if spec.get("replicas") is None:
            spec["replicas"] = 1
        complete_template(spec.get("template"))
        labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
        if labels:
            spec["selector"] = spec.get("selector") or dict(labels)
            if not document["metadata"].get("labels"):
                document["metadata"]["labels"] = dict(labels)

    def validate(self, document: Document) -> list[Cause]:
        spec = document["spec"]
        found = check_amounts(spec, "replicas", "minReadySeconds")
        selector, template = spec.get("selector") or {}, spec.get("template")
        if not selector:
            found.append(required("spec.selector"))
        if not template:
            return [*found, required("spec.template")]
        labels = (template.get("metadata") or {}).get("labels") or {}
        if any(labels.get(key) != value for key, value in selector.items()):
            why = "`selector` does not match template `labels`"
            found.append(invalid_value("spec.template.metadata.labels", labels, why))
        return found + check_labels(selector, "spec.selector") + validate_restarting(template, "spec.template")


class PodTemplateStrategy(Strategy):
    returns_object = True

    def complete(self, document: Document) -> None:
        complete_template(document.setdefault("template", {}))

    def validate(self, document: Document) -> list[Cause]:
        return validate_restarting(document["template"], "template", ("Always", "OnFailure", "Never"))


class ControllerRevisionStrategy(Strategy):
    def validate(self, document: Document) -> list[Cause]:
        revision = document.get("revision") or 0
        found = [] if revision >= 0 else [invalid_value("revision", revision, "must be greater than or equal to 0")]
        return found if document.get("data") is not None else [*found, required("data", "data is mandatory")]

    def validate_update(self, new: Document, old: Document) -> list[Cause]:
        if new.get("data") != old.get("data"):
            return [invalid_value("data", "", "field is immutable")]
        return []
