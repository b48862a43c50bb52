"""The columns of Pods. What a Pod's status says in one word is worked out from its containers, as kubectl's users know it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

from core.apiserver.cells import AGE, NONE, Column, Document, ago, at, dig, wide

__all__ = ["COLUMNS", "Read", "Summary", "summary"]


class _Named(TypedDict, total=False):
    name: str
    restartPolicy: str


class _Metadata(TypedDict, total=False):
    name: str
    creationTimestamp: str | None
    deletionTimestamp: str | None


class _Spec(TypedDict, total=False):
    containers: list[_Named] | None
    initContainers: list[_Named] | None
    nodeName: str
    readinessGates: Any


class Read(TypedDict, total=False):
    """What the columns read of a Pod. The rest of it, which is most of it, needn't be parsed for a row."""

    metadata: _Metadata
    spec: _Spec
    status: Any


@dataclass(slots=True)
class Summary:
    """What a row says of a Pod. `restarted` is when a container last ended before it was started again, "" if none did."""

    reason: str
    ready: int
    total: int
    restarts: int
    restarted: str

    def add(self, status: Document) -> None:
        """Count the restarts of a container."""
        self.restarts += int(status.get("restartCount") or 0)
        ended = dig(status, "lastState.terminated.finishedAt") or ""
        self.restarted = max(self.restarted, ended)


def _ended(terminated: Document, prefix: str = "") -> str:
    if terminated.get("reason"):
        return f"{prefix}{terminated['reason']}"
    if terminated.get("signal"):
        return f"{prefix}Signal:{terminated['signal']}"
    return f"{prefix}ExitCode:{terminated.get('exitCode', 0)}"


def _condition(document: Document, type_: str) -> Document:
    for each in (document.get("status") or {}).get("conditions") or ():
        if each.get("type") == type_:
            return each  # type: ignore[no-any-return]
    return {}


class _Newest:
    """The Pod that was summed up last: several columns ask for the same one."""

    __slots__ = ("found",)

    def __init__(self) -> None:
        self.found: tuple[Document | None, Summary] = (None, Summary("", 0, 0, 0, ""))

    def __call__(self, document: Document) -> Summary:
        of, found = self.found
        if of is not document:
            found = summary(document)
            self.found = (document, found)
        return found


def summary(document: Document) -> Summary:
    """The one-word status, the ready containers and the restarts of a Pod."""
    spec, status = document.get("spec") or {}, document.get("status") or {}
    inits = spec.get("initContainers") or ()
    sidecars = {each.get("name") for each in inits if each.get("restartPolicy") == "Always"}
    reason = str(status.get("reason") or status.get("phase") or "")
    if _condition(document, "PodScheduled").get("reason") == "SchedulingGated":
        reason = "SchedulingGated"
    found = Summary(reason, 0, len(spec.get("containers") or ()) + len(sidecars), 0, "")
    of_sidecars = Summary("", 0, 0, 0, "")

    initializing = _initialize(found, of_sidecars, status, sidecars, len(inits))
    if not initializing or _condition(document, "Initialized").get("status") == "True":
        found.restarts, found.restarted = of_sidecars.restarts, of_sidecars.restarted
        _run(found, document, status)

    if (document.get("metadata") or {}).get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            found.reason = "Unknown"
        elif status.get("phase") not in ("Succeeded", "Failed"):
            found.reason = "Terminating"
    return found


def _initialize(found: Summary, of_sidecars: Summary, status: Document, sidecars: set[Any], total: int) -> bool:
    """Whether an init container is what the Pod waits for; if so `reason` says how it fares."""
    for index, each in enumerate(status.get("initContainerStatuses") or ()):
        state = each.get("state") or {}
        terminated, waiting = state.get("terminated"), state.get("waiting") or {}
        found.add(each)
        if each.get("name") in sidecars:
            of_sidecars.add(each)
        if terminated is not None and not terminated.get("exitCode"):
            continue
        if each.get("name") in sidecars and each.get("started"):
            found.ready += bool(each.get("ready"))
            continue
        if terminated is not None:
            found.reason = _ended(terminated, "Init:")
        elif waiting.get("reason") and waiting["reason"] != "PodInitializing":
            found.reason = f"Init:{waiting['reason']}"
        else:
            found.reason = f"Init:{index}/{total}"
        return True
    return False


def _run(found: Summary, document: Document, status: Document) -> None:
    running = False
    for each in reversed(status.get("containerStatuses") or ()):
        state = each.get("state") or {}
        terminated, waiting = state.get("terminated"), state.get("waiting") or {}
        found.add(each)
        if waiting.get("reason"):
            found.reason = str(waiting["reason"])
        elif terminated is not None:
            found.reason = _ended(terminated)
        elif each.get("ready") and state.get("running") is not None:
            running = True
            found.ready += 1
    if found.reason == "Completed" and running:
        found.reason = "Running" if _condition(document, "Ready").get("status") == "True" else "NotReady"


_summed = _Newest()


def _ready(document: Document, now: float) -> str:
    found = _summed(document)
    return f"{found.ready}/{found.total}"


def _restarts(document: Document, now: float) -> str:
    found = _summed(document)
    if found.restarts and found.restarted:
        return f"{found.restarts} ({ago(found.restarted, now)} ago)"
    return str(found.restarts)


def _gates(document: Document, now: float) -> str:
    gates = dig(document, "spec.readinessGates") or ()
    open_gates = sum(_condition(document, each.get("conditionType", "")).get("status") == "True" for each in gates)
    return f"{open_gates}/{len(gates)}" if gates else NONE


COLUMNS = (
    Column("Ready", _ready, fixed=True),
    Column("Status", lambda document, now: _summed(document).reason, fixed=True),
    Column("Restarts", _restarts, fixed=lambda document: not _summed(document).restarted),
    AGE,
    wide("IP", at("status.podIP", NONE), fixed=True),
    wide("Node", at("spec.nodeName", NONE), fixed=True),
    wide("Nominated Node", at("status.nominatedNodeName", NONE), fixed=True),
    wide("Readiness Gates", _gates, fixed=True),
)
