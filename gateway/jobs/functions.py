"""What jobs reads of a Function: its cron triggers, its rules for queued calls, its packages.

Read leniently from the document, with the defaults of `faaslite.api.function` (whose models would cost this process pydantic):
a Function that can't be read in one place still works in the others, and the function controller tells its author.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct, field

from core import clock as clocks
from core.api.views import ObjectView
from faaslite.api.durations import parse_duration
from faaslite.api.names import PACKAGE_DRIVER
from faaslite.api.schedule import Schedule, load_zone, parse

__all__ = ["CronTrigger", "FunctionView", "Queueing", "packages_in", "packages_of", "queueing", "triggers"]

log = logging.getLogger(__name__)


class FunctionView(ObjectView):
    """`spec` and `status` stay documents."""

    spec: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)


class CronTrigger(Struct, frozen=True, kw_only=True):
    """One cron trigger, ready to plan. `jitter` in seconds; `since` is the instant from which it counts, if it has no history.

    `overlap` is Allow, Skip, Replace or Queue; `missed` is none, last or all.
    """

    namespace: str
    function: str
    name: str
    uid: str
    schedule: Schedule
    zone: str = "UTC"
    overlap: str = "Skip"
    missed: str = "last"
    jitter: float = 0.0
    paused: bool = False
    method: str = "POST"
    path: str = "/"
    payload: Any = None
    since: float | None = None
    retries: int = 0
    max_age: float = 0.0
    dead_letter: bool = False

    @property
    def key(self) -> tuple[str, str, str]:
        return self.namespace, self.function, self.name

    @property
    def fingerprint(self) -> str:
        """Changes where the instants do; pausing counts, so that what passes meanwhile is not missed."""
        return f"{'paused ' if self.paused else ''}{self.zone} {self.schedule.text}"


class Queueing(Struct, frozen=True):
    """`spec.async`: `max_age` in seconds."""

    retries: int = 3
    max_age: float = 21600.0
    dead_letter: bool = True
    weight: float = 1.0


def triggers(function: FunctionView) -> Iterator[CronTrigger]:
    """The triggers that can be read; of one that can't, the log says why."""
    created = function.metadata.creation_timestamp
    # A spec that was never changed has had its triggers from the beginning.
    since = clocks.parse_time(created) if created and function.metadata.generation == 1 else None
    rules = queueing(function)
    for number, each in enumerate(_entries(function.spec.get("cron")), 1):
        name = str(each.get("name") or f"cron-{number}")
        try:
            zone = str(each.get("timeZone") or "UTC")
            load_zone(zone)
            yield CronTrigger(
                namespace=function.namespace,
                function=function.name,
                name=name,
                uid=function.metadata.uid,
                schedule=parse(str(each.get("schedule") or "")),
                zone=zone,
                overlap=str(each.get("overlap") or "Skip"),
                missed=str(each.get("missed") or "last"),
                jitter=parse_duration(each.get("jitter") or 0),
                paused=bool(each.get("paused")),
                method=str(each.get("method") or "POST"),
                path=str(each.get("path") or "/"),
                payload=each.get("payload"),
                since=since,
                retries=rules.retries if each.get("retries") is None else min(max(int(each["retries"]), 0), 100),
                max_age=rules.max_age,
                dead_letter=rules.dead_letter,
            )
        except (ValueError, TypeError) as error:
            log.warning("%s: the cron trigger %s is left out: %s", function.key, name, error)


def _entries(value: object) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def queueing(function: FunctionView) -> Queueing:
    found = function.spec.get("async")
    if not isinstance(found, dict):
        return Queueing()
    try:
        retries, max_age, weight = found.get("retries"), found.get("maxAge"), found.get("weight")
        return Queueing(
            3 if retries is None else max(int(retries), 0),
            21600.0 if max_age is None else parse_duration(max_age),
            found.get("deadLetter") is not False,
            1.0 if weight is None else min(max(float(weight), 0.01), 100.0),
        )
    except (TypeError, ValueError) as error:
        log.warning("%s: spec.async can't be read, defaults are used: %s", function.key, error)
        return Queueing()


def packages_of(function: FunctionView) -> set[str]:
    """The digests that the spec names, and those of layers that were built for it."""
    found = function.spec.get("package")
    values = [found.get("digest"), found.get("layer")] if isinstance(found, dict) else []
    values += [each.get("digest") for each in _entries(function.status.get("layers"))]
    return {each for each in values if isinstance(each, str) and each}


def packages_in(template: Mapping[str, Any]) -> set[str]:
    """The digests that a Pod template mounts."""
    volumes = (template.get("spec") or {}).get("volumes") or ()
    found = (each.get("csi") or {} for each in volumes)
    digests = (
        (each.get("volumeAttributes") or {}).get("digest") for each in found if each.get("driver") == PACKAGE_DRIVER
    )
    return {each for each in digests if each}
