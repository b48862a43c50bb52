"""What a deletion does to an object, decided from its document, the options and the time.

Pure. The rules: https://kubernetes.io/docs/concepts/overview/working-with-objects/finalizers/ and
https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from core.api.kinds import Kind
from core.apiserver.status import conflict, invalid, invalid_value, not_supported
from core.clock import parse_time, timestamp
from core.errors import BadRequest

__all__ = ["FOREGROUND", "ORPHAN", "DeleteOptions", "decide", "delete_options", "done"]

Document = dict[str, Any]
FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


class DeleteOptions(NamedTuple):
    """`grace` in seconds, None where it wasn't said."""

    grace: int | None = None
    propagation: str = ""
    uid: str = ""
    resource_version: str = ""
    dry_run: bool = False


def delete_options(body: Mapping[str, Any], query: Mapping[str, str]) -> DeleteOptions:
    """From the request's body, which wins, and its query."""
    grace = body.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))
    propagation = body.get("propagationPolicy") or query.get("propagationPolicy") or ""
    orphan = body.get("orphanDependents", query.get("orphanDependents"))
    both = propagation if propagation and orphan is not None else ""
    if not propagation and orphan is not None:
        propagation = "Orphan" if orphan in (True, "true") else "Background"
    dry_run = body.get("dryRun") or [each for each in (query.get("dryRun"),) if each]
    preconditions = body.get("preconditions") or {}
    causes = []
    if propagation not in ("", "Orphan", "Background", "Foreground"):
        causes.append(not_supported("propagationPolicy", propagation, ["Foreground", "Background", "Orphan"]))
    if both:
        why = "orphanDependents and deletionPropagation cannot be both set"
        causes.append(invalid_value("propagationPolicy", both, why))
    if any(each != "All" for each in dry_run):
        causes.append(not_supported("dryRun", dry_run, ["All"]))
    if causes:
        raise invalid(Kind("meta.k8s.io", "v1", "DeleteOptions", ""), "", causes)
    try:
        seconds = None if grace is None or grace == "" else int(grace)
    except (TypeError, ValueError):
        raise BadRequest(f"invalid gracePeriodSeconds: {grace!r}") from None
    return DeleteOptions(
        seconds,
        str(propagation),
        str(preconditions.get("uid") or ""),
        str(preconditions.get("resourceVersion") or ""),
        bool(dry_run),
    )


def check_preconditions(kind: Kind, document: Document, options: DeleteOptions) -> None:
    """Raises `Conflict` where the object isn't the one that was meant."""
    metadata = document["metadata"]
    for said, found, word in (
        (options.uid, metadata.get("uid"), "UID"),
        (options.resource_version, metadata.get("resourceVersion"), "ResourceVersion"),
    ):
        if said and said != found:
            why = f"Precondition failed: {word} in precondition: {said}, {word} in object meta: {found}"
            raise conflict(kind, metadata["name"], why)


def _finalizers(metadata: Document, propagation: str) -> list[str]:
    found = list(metadata.get("finalizers") or ())
    if propagation:
        wanted = {"Orphan": ORPHAN, "Foreground": FOREGROUND}.get(propagation)
        found = [each for each in found if each not in (ORPHAN, FOREGROUND) or each == wanted]
        if wanted and wanted not in found:
            found.append(wanted)
    return found


def _grace(document: Document, options: DeleteOptions) -> int:
    """Seconds that a Pod gets: none where no node runs it."""
    spec, status = document.get("spec") or {}, document.get("status") or {}
    if not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
        return 0
    wanted = spec.get("terminationGracePeriodSeconds", 30) if options.grace is None else options.grace
    return int(wanted) if wanted >= 0 else 1


def decide(document: Document, options: DeleteOptions, now: float, *, graceful: bool, held: bool) -> Document | None:
    """The object as it is to stay for now, or None where it is to go at once.

    `graceful`: the kind's objects may be given time to end; `held`: something besides finalizers keeps the object.
    """
    metadata = document["metadata"]
    finalizers = _finalizers(metadata, options.propagation)
    grace = _grace(document, options) if graceful else 0
    marked = dict(metadata)
    if finalizers:
        marked["finalizers"] = finalizers
    else:
        marked.pop("finalizers", None)
    if before := metadata.get("deletionTimestamp"):
        left = metadata.get("deletionGracePeriodSeconds") or 0
        # A second deletion may only shorten the time.
        grace = min(grace, left) if options.grace is not None or not graceful else left
        if grace < left:
            marked["deletionGracePeriodSeconds"] = grace
            marked["deletionTimestamp"] = timestamp(parse_time(before) - left + grace)
    else:
        marked["deletionTimestamp"] = timestamp(now + grace)
        marked["deletionGracePeriodSeconds"] = grace
        if marked.get("generation"):
            marked["generation"] += 1
    if not grace and not finalizers and not held:
        return None
    return {**document, "metadata": marked}


def done(document: Document, *, held: bool) -> bool:
    """Whether an update has taken the last thing that kept an object which is being deleted."""
    metadata = document["metadata"]
    return bool(
        metadata.get("deletionTimestamp")
        and not metadata.get("finalizers")
        and not metadata.get("deletionGracePeriodSeconds")
        and not held
    )
