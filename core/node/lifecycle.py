"""The lifecycle of a Pod on its node, as a table of transitions: what is observed, and `now`, to what shall be done.

Nothing here does I/O or reads the clock. `PodWorker` keeps an `Observed`, asks `decide` after every change, carries out
the actions, and asks again. The rows of `TRANSITIONS` are tried in order; the first that applies decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from core.api import views
from core.api.strain import LOST
from core.clock import parse_time
from core.node.backoff import RESET_AFTER, restart_delay
from core.node.runtime.base import ContainerInfo, ContainerState

__all__ = [
    "RESTARTS", "TRANSITIONS", "Action", "ContainerRecord", "DeleteObject", "EnsureSandbox", "Fail", "Forget", "Observed", "Plan",
    "RemoveSandbox", "Start", "Stop", "Waiting", "add_ephemerals", "decide", "lose_sandbox", "observe", "phase", "restarts", "restored",
]  # fmt: skip


# What is observed


@dataclass(slots=True)
class Waiting:
    """Why a container doesn't run, and the earliest time (seconds since the epoch) at which to try again."""

    reason: str
    message: str = ""
    retry_at: float = 0.0
    failures: int = 0
    since: float = 0.0


@dataclass(slots=True)
class ContainerRecord:
    """One container of the Pod: its newest attempt, the one before, and what the agent knows besides.

    `attempt` is that of `info`, or of the one to be made where there is none. `crashes` counts the restarts in a row,
    `kill` says why a running one must be stopped (a failed liveness probe).
    """

    spec: views.Container
    init: bool = False
    ephemeral: bool = False
    attempt: int = 0
    info: ContainerInfo | None = None
    last: ContainerInfo | None = None
    waiting: Waiting | None = None
    crashes: int = 0
    started: bool = False
    ready: bool = False
    kill: str = ""
    ended_message: str = ""
    last_message: str = ""

    @property
    def running(self) -> bool:
        return self.info is not None and self.info.state is ContainerState.RUNNING

    @property
    def exited(self) -> bool:
        return self.info is not None and self.info.state is ContainerState.EXITED

    @property
    def succeeded(self) -> bool:
        return self.exited and self.info is not None and self.info.exit_code == 0

    @property
    def sidecar(self) -> bool:
        """An init container that stays (KEP-753)."""
        return self.init and self.spec.restart_policy == "Always"


@dataclass(slots=True)
class Observed:
    """A Pod as its node sees it. `failed` is (reason, message) once the node gave it up; `kill_by` is when it must be gone."""

    pod: views.Pod
    containers: dict[str, ContainerRecord] = field(default_factory=dict)
    sandbox_id: str = ""
    address: str = ""
    start_time: float = 0.0
    waiting: Waiting | None = None
    failed: tuple[str, str] | None = None
    kill_by: float | None = None
    final_phase: str = ""
    """The phase in which an earlier agent left it for good."""
    gone: bool = False
    """The object is no longer in the API."""

    @property
    def inits(self) -> Iterator[ContainerRecord]:
        return (each for each in self.containers.values() if each.init)

    @property
    def mains(self) -> Iterator[ContainerRecord]:
        return (each for each in self.containers.values() if not each.init and not each.ephemeral)

    @property
    def ephemerals(self) -> Iterator[ContainerRecord]:
        """Those that somebody added to look into the Pod (KEP-277): they run once, and count for nothing."""
        return (each for each in self.containers.values() if each.ephemeral)

    @property
    def running(self) -> list[str]:
        return [name for name, each in self.containers.items() if each.running]


# What is to be done


@dataclass(frozen=True, slots=True)
class EnsureSandbox:
    """Prepare volumes, then take a warm sandbox or make one."""


@dataclass(frozen=True, slots=True)
class Start:
    """Create and start that attempt of a container."""

    container: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop these containers side by side, within `grace` seconds, preStop hooks included."""

    containers: tuple[str, ...]
    grace: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Fail:
    """Give the Pod up."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class RemoveSandbox:
    """Remove the sandbox and whatever is left in it."""


@dataclass(frozen=True, slots=True)
class DeleteObject:
    """The last status, then the final deletion (grace 0) from the API."""


@dataclass(frozen=True, slots=True)
class Forget:
    """Nothing of the Pod is left: drop its worker and its volumes."""


Action = EnsureSandbox | Start | Stop | Fail | RemoveSandbox | DeleteObject | Forget


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, the row that said so, and when to ask again though nothing happens (None: never)."""

    row: str
    actions: tuple[Action, ...] = ()
    wake_at: float | None = None


RESTARTS: dict[tuple[str, bool], bool] = {
    ("Always", True): True,
    ("Always", False): True,
    ("OnFailure", True): False,
    ("OnFailure", False): True,
    ("Never", True): False,
    ("Never", False): False,
}
"""(restartPolicy, exit code 0) -> whether a container is started again."""


def restarts(observed: Observed, record: ContainerRecord) -> bool:
    """Whether that exited container is to be started again."""
    if record.sidecar:
        return True
    if record.ephemeral:
        return False
    policy = observed.pod.spec.restart_policy or "Always"
    if record.init and record.succeeded:
        return False
    if record.init and policy == "Always":
        policy = "OnFailure"
    return RESTARTS[policy, record.succeeded]


def restored(record: ContainerRecord) -> None:
    """Prepare the record for its next attempt; what ended becomes the last state."""
    ended = record.info
    ran = ended.finished_at - ended.started_at if ended and ended.started_at else 0.0
    record.crashes = 0 if ran >= RESET_AFTER else record.crashes + 1
    record.last, record.last_message = ended, record.ended_message
    record.info, record.ended_message = None, ""
    record.attempt += 1
    record.started = record.ready = False
    record.kill = ""


def phase(observed: Observed) -> str:
    """The Pod's phase (`v1.PodPhase`)."""
    if observed.final_phase or observed.failed:
        return observed.final_phase or "Failed"
    if observed.kill_by is not None and observed.pod.metadata.finalizers and not observed.sandbox_id:
        # Its object stays when its node has done with it, and nothing of it will run again.
        mains = list(observed.mains)
        return "Succeeded" if mains and all(each.succeeded for each in mains) else "Failed"
    inits, mains = list(observed.inits), list(observed.mains)
    if any(each.exited and not each.succeeded and not restarts(observed, each) for each in inits):
        return "Failed"
    if mains and all(each.exited and not restarts(observed, each) for each in mains):
        return "Succeeded" if all(each.succeeded for each in mains) else "Failed"
    if any(each.info is not None and each.info.state is not ContainerState.CREATED for each in mains) or any(
        each.last is not None for each in mains
    ):
        return "Running"
    return "Pending"


# The rows

_Row = tuple[str, Callable[[Observed, float], bool], Callable[[Observed, float], Plan]]


def _deadline(observed: Observed) -> float | None:
    seconds = observed.pod.spec.active_deadline_seconds
    return observed.start_time + seconds if seconds is not None and observed.start_time else None


def _over_deadline(observed: Observed, now: float) -> bool:
    deadline = _deadline(observed)
    return deadline is not None and now >= deadline and observed.failed is None


def _terminal(observed: Observed, now: float) -> bool:
    return phase(observed) in ("Succeeded", "Failed")


def _grace(observed: Observed) -> float:
    return float(observed.pod.spec.termination_grace_period_seconds)


def _dismantle(observed: Observed, now: float) -> Plan:
    return Plan("dismantle", (RemoveSandbox(),))


def _stop_for_deletion(observed: Observed, now: float) -> Plan:
    grace = max((observed.kill_by or now) - now, 0.0)
    return Plan("stop", (Stop(tuple(observed.running), grace, "Killing"),))


def _stop_rest(observed: Observed, now: float) -> Plan:
    return Plan("stop-rest", (Stop(tuple(observed.running), _grace(observed), "Killing"),))


def _kill_unhealthy(observed: Observed, now: float) -> Plan:
    stops = []
    for name, each in observed.containers.items():
        if each.running and each.kill:
            probe = each.spec.liveness_probe
            grace = probe.termination_grace_period_seconds if probe else None
            stops.append(Stop((name,), _grace(observed) if grace is None else float(grace), each.kill))
    return Plan("unhealthy", tuple(stops))


def _next_start(observed: Observed, record: ContainerRecord, now: float) -> tuple[Start | None, float | None]:
    """The start that is due, or when it will be."""
    waiting = record.waiting
    due = waiting.retry_at if waiting else 0.0
    attempt = record.attempt
    if record.exited and record.info is not None:
        due = max(due, record.info.finished_at + restart_delay(record.crashes))
        attempt += 1
    return (Start(record.spec.name, attempt), None) if now >= due else (None, due)


def _earliest(times: list[float | None]) -> float | None:
    found = [each for each in times if each is not None]
    return min(found) if found else None


def _run(observed: Observed, now: float) -> Plan:
    """Start what should run and doesn't: init containers one after another, then the rest side by side; what was added, at any time."""
    wakes = [_deadline(observed)]
    starts: list[Action] = []
    for each in observed.ephemerals:
        if not each.running and not each.exited:
            start, due = _next_start(observed, each, now)
            starts += [start] if start else []
            wakes.append(due)
    for each in observed.inits:
        if each.sidecar:
            if not each.running:
                start, due = _next_start(observed, each, now)
                starts += [start] if start else []
                wakes.append(due)
            if not each.started:
                return Plan("sidecar", tuple(starts), _earliest(wakes))
        elif not each.succeeded:
            if not each.running:
                start, due = _next_start(observed, each, now)
                starts += [start] if start else []
                wakes.append(due)
            return Plan("init", tuple(starts), _earliest(wakes))
    for each in observed.mains:
        if each.running or (each.exited and not restarts(observed, each)):
            continue
        start, due = _next_start(observed, each, now)
        starts += [start] if start else []
        wakes.append(due)
    return Plan("run", tuple(starts), _earliest(wakes))


def _prepare(observed: Observed, now: float) -> Plan:
    waiting = observed.waiting
    if waiting and now < waiting.retry_at:
        return Plan("prepare", (), _earliest([waiting.retry_at, _deadline(observed)]))
    return Plan("prepare", (EnsureSandbox(),))


TRANSITIONS: tuple[_Row, ...] = (
    ("gone", lambda o, now: o.gone and bool(o.sandbox_id), _dismantle),
    ("gone, nothing left", lambda o, now: o.gone, lambda o, now: Plan("forget", (Forget(),))),
    ("deleted, still running", lambda o, now: o.kill_by is not None and bool(o.running), _stop_for_deletion),
    ("deleted, stopped", lambda o, now: o.kill_by is not None and bool(o.sandbox_id), _dismantle),
    ("deleted, nothing left", lambda o, now: o.kill_by is not None, lambda o, now: Plan("delete", (DeleteObject(),))),
    ("over its deadline", _over_deadline, lambda o, now: Plan(
        "deadline", (Fail("DeadlineExceeded", "Pod was active on the node longer than the specified deadline"),))),
    ("ended, still running", lambda o, now: _terminal(o, now) and bool(o.running), _stop_rest),
    ("ended, stopped", lambda o, now: _terminal(o, now) and bool(o.sandbox_id), _dismantle),
    ("ended", _terminal, lambda o, now: Plan("ended")),
    ("unhealthy", lambda o, now: any(each.running and each.kill for each in o.containers.values()), _kill_unhealthy),
    ("no sandbox", lambda o, now: not o.sandbox_id, _prepare),
    ("sandbox", lambda o, now: True, _run),
)  # fmt: skip
"""(what holds, its test, what follows), tried in this order."""


def decide(observed: Observed, now: float) -> Plan:
    """What to do with that Pod now; `now` is seconds since the epoch."""
    return next(plan(observed, now) for _, holds, plan in TRANSITIONS if holds(observed, now))


def observe(pod: views.Pod) -> Observed:
    """A Pod that the node hasn't touched, or whose containers it has yet to find.

    What an earlier agent wrote in its status counts: restarts, and a phase that is final.
    """
    known = {each.name: each for each in (*pod.status.init_container_statuses, *pod.status.container_statuses)}
    found = Observed(pod)
    add_ephemerals(found, pod)
    for init, specs in ((True, pod.spec.init_containers), (False, pod.spec.containers)):
        for spec in specs:
            record = found.containers[spec.name] = ContainerRecord(spec, init)
            status = known.get(spec.name)
            if status is not None and (status.container_id or status.restart_count):
                record.attempt = status.restart_count
    if pod.status.start_time:
        found.start_time = parse_time(pod.status.start_time)
    if pod.terminal:
        found.final_phase = pod.status.phase
    return found


def add_ephemerals(observed: Observed, pod: views.Pod) -> bool:
    """Take in the containers that were added to the Pod; whether there are new ones. One that has run before, by the API's status, has ended."""
    posted = {each.name: each for each in pod.status.ephemeral_container_statuses}
    new = [each for each in pod.spec.ephemeral_containers if each.name not in observed.containers]
    for spec in new:
        record = observed.containers[spec.name] = ContainerRecord(spec, ephemeral=True)
        status = posted.get(spec.name)
        if status is None or not (status.state.running or status.state.terminated):
            continue
        ended = status.state.terminated or {}
        started = (status.state.running or ended).get("startedAt")
        record.info = ContainerInfo(
            status.container_id.partition("://")[2], spec.name, "", ContainerState.EXITED if ended else ContainerState.RUNNING,
            image=status.image, image_id=status.image_id,
            started_at=parse_time(started) if started else 0.0,
            finished_at=parse_time(ended["finishedAt"]) if ended.get("finishedAt") else 0.0,
            exit_code=int(ended["exitCode"]) if "exitCode" in ended else None,
        )  # fmt: skip
        record.ended_message = str(ended.get("message") or "")
    return bool(new)


def lose_sandbox(observed: Observed, now: float) -> None:
    """The sandbox is no more, though nobody here removed it: what ran in it has ended, init containers run again.

    For a Pod that this agent meets for the first time, the API's status says what ran.
    """
    posted = {each.name: each.container_id for each in observed.pod.status.container_statuses if each.container_id}
    for name, each in observed.containers.items():
        info = each.info
        if info is None and each.last is None and not each.init and name in posted:
            info = ContainerInfo(
                posted[name].partition("://")[2], name, "", ContainerState.RUNNING, attempt=each.attempt
            )
        each.started = each.ready = False
        if each.init:
            each.info = None
        elif info is not None and info.state is not ContainerState.EXITED:
            each.info = replace(info, state=ContainerState.EXITED, finished_at=now, exit_code=137)
            each.ended_message = LOST
    observed.sandbox_id = observed.address = ""
