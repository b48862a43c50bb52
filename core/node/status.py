"""The Pod status document, from what the node observed. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from core.api import views
from core.api.meta import Document, set_condition
from core.api.strain import STRAINS, WITHIN_LIMITS
from core.clock import timestamp
from core.node.backoff import restart_delay
from core.node.lifecycle import ContainerRecord, Observed, phase, restarts
from core.node.runtime.base import ContainerInfo, ContainerState

__all__ = ["container_ready", "holds", "pod_status", "posted_conditions", "with_foreign"]


def posted_conditions(pod: views.Pod) -> list[Document]:
    """The conditions that the API has, as documents, so that their transition times and those of others are kept."""
    return [
        {
            "type": each.type,
            "status": each.status,
            **({"reason": each.reason} if each.reason else {}),
            **({"message": each.message} if each.message else {}),
            "lastTransitionTime": each.last_transition_time,
        }
        for each in pod.status.conditions
    ]


def with_foreign(conditions: list[Document], pod: views.Pod) -> list[Document]:
    """Our conditions, and those of others (readiness gates among them) as the API has them now."""
    gates = {str(each.get("conditionType", "")) for each in pod.spec.readiness_gates}
    ours = [each for each in conditions if each["type"] not in gates]
    known = {each["type"] for each in ours}
    return ours + [each for each in posted_conditions(pod) if each["type"] not in known]


def holds(conditions: list[Document], type_: str) -> bool:
    return any(each["type"] == type_ and each["status"] == "True" for each in conditions)


def container_ready(record: ContainerRecord) -> bool:
    return record.running and record.started and record.ready


def pod_status(observed: Observed, conditions: list[Document], *, now: float, host_ip: str, runtime: str) -> Document:
    """`v1.PodStatus`; `conditions` are those of the last document, `runtime` is the prefix of container ids."""
    current = phase(observed)
    reason, message = observed.failed or ("", "")
    status: Document = {"phase": current, "hostIP": host_ip, "hostIPs": [{"ip": host_ip}]}
    posted = observed.pod.status
    if reason or posted.reason:
        status["reason"] = reason or None
    if message or posted.message:
        status["message"] = message or None
    if observed.address:
        status["podIP"] = observed.address
        status["podIPs"] = [{"ip": observed.address}]
    if observed.start_time:
        status["startTime"] = timestamp(observed.start_time)
    inits = [_container_status(observed, each, now, runtime) for each in observed.inits]
    if inits:
        status["initContainerStatuses"] = inits
    status["containerStatuses"] = [_container_status(observed, each, now, runtime) for each in observed.mains]
    added = [_container_status(observed, each, now, runtime) for each in observed.ephemerals]
    if added:
        status["ephemeralContainerStatuses"] = [{**each, "ready": False, "started": None} for each in added]
    status["conditions"] = _conditions(observed, conditions, current, now)
    return status


def _conditions(observed: Observed, conditions: list[Document], current: str, now: float) -> list[Document]:
    ended = current in ("Succeeded", "Failed")
    over = "PodCompleted" if current == "Succeeded" else "PodFailed"
    pending = [each.spec.name for each in observed.inits if not (each.started if each.sidecar else each.succeeded)]
    unready = [each.spec.name for each in observed.mains if not container_ready(each)]
    unready += [each.spec.name for each in observed.inits if each.sidecar and not container_ready(each)]
    found = _set(conditions, "PodReadyToStartContainers", bool(observed.sandbox_id), "", "", now)
    if pending and not ended:
        said = f"containers with incomplete status: [{' '.join(pending)}]"
        found = _set(found, "Initialized", False, "ContainersNotInitialized", said, now)
    else:
        found = _set(found, "Initialized", True, "PodCompleted" if ended else "", "", now)
    if ended:
        found = _set(found, "Ready", False, over, "", now)
        found = _set(found, "ContainersReady", False, over, "", now)
    elif unready:
        said = f"containers with unready status: [{' '.join(unready)}]"
        found = _set(found, "Ready", False, "ContainersNotReady", said, now)
        found = _set(found, "ContainersReady", False, "ContainersNotReady", said, now)
    else:
        closed = _closed_gates(observed, found)
        said = f'the status of pod readiness gates is not "True", but they are in: [{" ".join(closed)}]'
        found = _set(
            found, "Ready", not closed, "ReadinessGatesNotReady" if closed else "", said if closed else "", now
        )
        found = _set(found, "ContainersReady", True, "", "", now)
    if not any(each["type"] == "PodScheduled" for each in found):
        found = _set(found, "PodScheduled", True, "", "", now)
    strains = {said for each in observed.containers.values() if each.running and each.info for said in each.info.over}
    if strains or any(each["type"] == WITHIN_LIMITS for each in found):
        reasons = [each for each in STRAINS if each in strains]
        said = "; ".join(STRAINS[each] for each in reasons)
        found = _set(found, WITHIN_LIMITS, not strains, reasons[0] if reasons else "", said, now)
    return found


def _closed_gates(observed: Observed, conditions: Iterable[Document]) -> list[str]:
    open_ = {each["type"] for each in conditions if each["status"] == "True"}
    gates = (str(each.get("conditionType", "")) for each in observed.pod.spec.readiness_gates)
    return [each for each in gates if each not in open_]


def _set(conditions: list[Document], type_: str, holds: bool, reason: str, message: str, now: float) -> list[Document]:
    found = set_condition(conditions, type_, "True" if holds else "False", reason, message, now)
    return [_lean(each) if each["type"] == type_ else each for each in found]


def _lean(condition: Document) -> Document:
    return {name: value for name, value in condition.items() if value != ""}


def _container_status(observed: Observed, record: ContainerRecord, now: float, runtime: str) -> Document:
    info = record.info
    status: Document = {
        "name": record.spec.name,
        "image": (info.image if info else "") or record.spec.image,
        "imageID": info.image_id if info else "",
        "ready": container_ready(record) or (record.init and not record.sidecar and record.succeeded),
        "started": record.running and record.started,
        "restartCount": record.attempt,
        "state": _state(observed, record, now, runtime),
        "lastState": {},
    }
    if info is not None:
        status["containerID"] = f"{runtime}://{info.id}"
    elif record.last is not None:
        status["containerID"] = f"{runtime}://{record.last.id}"
    if record.last is not None:
        status["lastState"] = {"terminated": _terminated(record.last, record.last_message, runtime)}
    if record.exited and info is not None and _will_restart(observed, record):
        # Between two attempts the one that ended is the last state, and the state says what is waited for.
        status["lastState"] = {"terminated": _terminated(info, record.ended_message, runtime)}
    return status


def _will_restart(observed: Observed, record: ContainerRecord) -> bool:
    return (
        phase(observed) in ("Pending", "Running")
        and observed.kill_by is None
        and not observed.gone
        and restarts(observed, record)
    )


def _state(observed: Observed, record: ContainerRecord, now: float, runtime: str) -> Document:
    info = record.info
    if info is not None and info.state is ContainerState.RUNNING:
        return {"running": {"startedAt": timestamp(info.started_at or now)}}
    if info is not None and info.state is ContainerState.EXITED:
        if not _will_restart(observed, record):
            return {"terminated": _terminated(info, record.ended_message, runtime)}
        if record.waiting is None:
            delay = restart_delay(record.crashes)
            if delay and now < info.finished_at + delay:
                name, pod = record.spec.name, observed.pod
                said = f"back-off {delay:g}s restarting failed container={name} pod={pod.name}_{pod.namespace}({pod.metadata.uid})"
                return {"waiting": {"reason": "CrashLoopBackOff", "message": said}}
            return {"terminated": _terminated(info, record.ended_message, runtime)}
    waiting = record.waiting or observed.waiting
    if waiting is not None:
        return {"waiting": {"reason": waiting.reason, **({"message": waiting.message} if waiting.message else {})}}
    pending = any(not (each.started if each.sidecar else each.succeeded) for each in observed.inits)
    return {
        "waiting": {
            "reason": "PodInitializing" if pending and not record.init and not record.ephemeral else "ContainerCreating"
        }
    }


def _terminated(info: ContainerInfo, message: str, runtime: str) -> Document:
    code = 0 if info.exit_code is None else info.exit_code
    reason = "OOMKilled" if info.oom_killed else "Completed" if code == 0 else "Error"
    found: dict[str, Any] = {
        "exitCode": code,
        "reason": reason,
        "startedAt": timestamp(info.started_at) if info.started_at else None,
        "finishedAt": timestamp(info.finished_at) if info.finished_at else None,
        "containerID": f"{runtime}://{info.id}",
    }
    if message:
        found["message"] = message
    return found
