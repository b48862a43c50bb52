"""The status of a Function: conditions and what they say. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from core.api.meta import Document, set_condition
from faaslite.controllers.revisions import Failure

__all__ = ["Verdict", "new_status", "only_replicas_differ", "ready_condition"]

CONDITIONS = ("Packaged", "Built", "RoutesReady", "Healthy", "Ready")


@dataclass(frozen=True, slots=True)
class Verdict:
    """One condition: `status` is "True", "False" or "Unknown"."""

    status: str
    reason: str
    message: str = ""


def ready_condition(
    packaged: Verdict, routes: Verdict, newest: str, latest_ready: str, failure: Failure | None, serving: Iterable[str],
    built: Verdict | None = None,
) -> Verdict:  # fmt: skip
    """Whether calls get what the spec says. An older revision that serves on is mentioned, but isn't it."""
    if packaged.status == "True" and built is not None and built.status != "True":
        # What the spec says has no revision yet: the newest there is serves on as well.
        return Verdict(built.status, built.reason, built.message + _still(serving, ""))
    if packaged.status != "True":
        return Verdict("False", packaged.reason, packaged.message + _still(serving, newest))
    if newest and newest == latest_ready and failure is None:
        return routes if routes.status != "True" else Verdict("True", "RevisionReady", f"revision {newest} is ready")
    if failure is not None:
        return Verdict("False", failure.reason, f"revision {newest}: {failure.message}{_still(serving, newest)}")
    return Verdict("Unknown", "Deploying", f"revision {newest} has no ready instance yet{_still(serving, newest)}")


def _still(serving: Iterable[str], newest: str) -> str:
    others = [each for each in serving if each != newest]
    return f" ({', '.join(others)} keeps serving)" if others else ""


def new_status(
    old: Mapping[str, Any],
    fields: Mapping[str, Any],
    verdicts: Mapping[str, Verdict | None],
    generation: int,
    now: float,
) -> Document | None:
    """The status to write, None where the object has it. A field that isn't among `fields` stays, one that is None goes; and so do conditions."""
    gone = {type_ for type_, verdict in verdicts.items() if verdict is None}
    conditions = [dict(each) for each in old.get("conditions") or () if each.get("type") not in gone]
    for type_ in CONDITIONS:
        verdict = verdicts.get(type_)
        if verdict is not None:
            conditions = set_condition(
                conditions,
                type_,
                verdict.status,
                verdict.reason,
                verdict.message,
                now,
                observedGeneration=generation,
            )
    found = {**old, **fields, "observedGeneration": generation, "conditions": conditions}
    found = {name: value for name, value in found.items() if value is not None}
    return None if found == old else found


def only_replicas_differ(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether the count of instances is the only news: that may be written late, for nobody decides by it."""
    return {**old, "replicas": None} == {**new, "replicas": None}
