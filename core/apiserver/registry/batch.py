"""Rules of Jobs and CronJobs: defaults, the selector that a Job is given, what may change."""

from __future__ import annotations

import re
import zoneinfo
from datetime import UTC, datetime
from types import MappingProxyType

from cronsim import CronSim, CronSimError

from core.apiserver.registry.pods import text
from core.apiserver.registry.strategy import Cause, Document, Strategy
from core.apiserver.registry.templates import (
    check_amounts,
    check_selector,
    complete_template,
    go_selector,
    validate_restarting,
)
from core.apiserver.status import GoValue, immutable, invalid_value, not_supported, required

__all__ = ["CronJobStrategy", "JobStrategy"]

_UID = "batch.kubernetes.io/controller-uid"
_NAME = "batch.kubernetes.io/job-name"
_POLICIES = ("OnFailure", "Never")
_MAX = 2**31 - 1
_MACROS = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0", "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip


def _successful(document: Document) -> str:
    return str((document.get("status") or {}).get("succeeded") or 0)


class JobStrategy(Strategy):
    generation = True
    allotted = (
        ("metadata", "labels"),
        ("spec", "selector"),
        ("spec", "template", "metadata", "labels"),
        *(("spec", "template", "metadata", "labels", key) for key in ("controller-uid", "job-name", _NAME, _UID)),
    )
    fields = MappingProxyType({"status.successful": _successful})

    def prepare_create(self, document: Document, now: float) -> None:
        document["status"] = {}
        spec, metadata = document.setdefault("spec", {}), document["metadata"]
        if not spec.get("manualSelector"):
            self._mark(spec, metadata)

    def _mark(self, spec: Document, metadata: Document) -> None:
        """The labels by which the Job's Pods are told from all others."""
        template = spec.setdefault("template", {})
        labels = template.setdefault("metadata", {}).setdefault("labels", {})
        uid, name = metadata["uid"], metadata.get("name") or metadata.get("generateName") or ""
        labels.update({_UID: uid, _NAME: name, "controller-uid": uid, "job-name": name})
        if not spec.get("selector"):
            spec["selector"] = {"matchLabels": {_UID: uid}}

    def complete(self, document: Document) -> None:
        spec = document.setdefault("spec", {})
        self._named(spec, document["metadata"])
        if spec.get("completions") is None and spec.get("parallelism") is None:
            spec["completions"] = spec["parallelism"] = 1
        if spec.get("parallelism") is None:
            spec["parallelism"] = 1
        per_index = spec.get("backoffLimitPerIndex") is not None
        replaced = "Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed"
        for key, value in (
            ("backoffLimit", _MAX if per_index else 6), ("completionMode", "NonIndexed"), ("suspend", False),
            ("manualSelector", False), ("podReplacementPolicy", replaced),
        ):  # fmt: skip
            if spec.get(key) is None:
                spec[key] = value
        complete_template(spec.get("template"))
        labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
        if labels and not document["metadata"].get("labels"):
            document["metadata"]["labels"] = dict(labels)

    def _named(self, spec: Document, metadata: Document) -> None:
        """A generated name is only known now."""
        labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
        if not spec.get("manualSelector") and _NAME in labels and metadata.get("name"):
            for key in (_NAME, "job-name"):
                if labels.get(key) == metadata.get("generateName"):
                    labels[key] = metadata["name"]

    def validate(self, document: Document) -> list[Cause]:
        spec = document["spec"]
        amounts = (
            "parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished",
            "backoffLimitPerIndex", "maxFailedIndexes",
        )  # fmt: skip
        found = check_amounts(spec, *amounts) + check_selector(spec.get("selector"), "job")
        for key, known in (
            ("completionMode", ("NonIndexed", "Indexed")),
            ("podReplacementPolicy", ("Failed", "TerminatingOrFailed")),
        ):
            if spec[key] not in known:
                found.append(not_supported(f"spec.{key}", spec[key], known))
        if spec["completionMode"] == "Indexed":
            if spec.get("completions") is None:
                found.append(required("spec.completions", "when completion mode is Indexed"))
            elif spec["parallelism"] > 100000:
                why = "must be less than or equal to 100000 when completion mode is Indexed"
                found.append(invalid_value("spec.parallelism", spec["parallelism"], why))
        return found + _template(spec.get("template"), "spec.template")

    def validate_update(self, new: Document, old: Document) -> list[Cause]:
        now, was = new["spec"], old["spec"]
        found = []
        elastic = now["completionMode"] == "Indexed" and now.get("completions") == now.get("parallelism")
        if now.get("completions") != was.get("completions") and not elastic:
            found.append(immutable("spec.completions", now.get("completions")))
        if now.get("selector") != was.get("selector"):
            found.append(immutable("spec.selector", go_selector(now.get("selector"))))
        waiting = was.get("suspend") and not (old.get("status") or {}).get("startTime")
        if now.get("template") != was.get("template") and not waiting:
            found.append(immutable("spec.template", GoValue("core.PodTemplateSpec{...}")))
        found += [
            immutable(f"spec.{key}", now.get(key))
            for key in ("completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy")
            if now.get(key) != was.get(key)
        ]
        return found


def _template(template: Document | None, at: str) -> list[Cause]:
    if not template or not (template.get("spec") or {}).get("containers"):
        return [required(f"{at}.spec.containers")]
    return validate_restarting(template, at, _POLICIES)


_FIELD_COUNT = re.compile(r"\S+")


def schedule_error(schedule: str, zone: str | None) -> str:
    """Why a cron schedule can't be followed; "" where it can."""
    if schedule.startswith("@every "):
        return (
            "" if re.fullmatch(r"@every (\d+(\.\d+)?(h|ms|m|s))+", schedule) else f"failed to parse duration {schedule}"
        )
    text = _MACROS.get(schedule, schedule)
    if text.startswith("@"):
        return f"unrecognized descriptor: {text}"
    fields = _FIELD_COUNT.findall(text)
    if len(fields) != 5:
        return f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]"
    try:
        # Without its month: a day that no month of the schedule has (31 February) is read, and never comes.
        CronSim(" ".join((*fields[:3], "*", fields[4])), datetime.now(UTC))
        CronSim(f"0 0 1 {fields[3]} *", datetime.now(UTC))
    except CronSimError as error:
        return f"failed to parse schedule {schedule}: {error}"
    return ""


class CronJobStrategy(Strategy):
    generation = True
    fields = MappingProxyType({"spec.schedule": text("spec", "schedule")})

    def check_name(self, name: str) -> str:
        return super().check_name(name) or ("must be no more than 52 characters" if len(name) > 52 else "")

    def prepare_create(self, document: Document, now: float) -> None:
        document["status"] = {}

    def complete(self, document: Document) -> None:
        spec = document.setdefault("spec", {})
        spec["concurrencyPolicy"] = spec.get("concurrencyPolicy") or "Allow"
        for key, value in (("suspend", False), ("successfulJobsHistoryLimit", 3), ("failedJobsHistoryLimit", 1)):
            if spec.get(key) is None:
                spec[key] = value
        job = spec.setdefault("jobTemplate", {})
        job.setdefault("metadata", {}).pop("creationTimestamp", None)
        complete_template(job.setdefault("spec", {}).get("template"))

    def validate(self, document: Document) -> list[Cause]:
        spec = document["spec"]
        amounts = ("startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit")
        found = check_amounts(spec, *amounts)
        schedule, zone = spec.get("schedule") or "", spec.get("timeZone")
        if not schedule:
            found.append(required("spec.schedule"))
        elif "TZ" in schedule:
            found.append(
                invalid_value(
                    "spec.schedule", schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
                )
            )
        elif why := schedule_error(schedule, zone):
            found.append(invalid_value("spec.schedule", schedule, why))
        if zone is not None:
            found += _zone(zone)
        known = ("Allow", "Forbid", "Replace")
        if spec["concurrencyPolicy"] not in known:
            found.append(not_supported("spec.concurrencyPolicy", spec["concurrencyPolicy"], known))
        job = spec["jobTemplate"]["spec"]
        if job.get("manualSelector"):
            found.append(not_supported("spec.jobTemplate.spec.manualSelector", True, ("nil", "false")))
        return found + _template(job.get("template"), "spec.jobTemplate.spec.template")


def _zone(zone: str) -> list[Cause]:
    if not zone:
        return [invalid_value("spec.timeZone", zone, "timeZone must be nil or non-empty string")]
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return [invalid_value("spec.timeZone", zone, f"unknown time zone {zone}")]
    return []
