"""Startup, readiness and liveness probes of one container.

Timers of the event loop say when to look; a task lives only while a look is under way. Readiness and liveness begin once
startup has succeeded. A container that says itself that it is ready (`announce`) counts as the first success of startup and
readiness. Until a probe has first succeeded, looks that fail are repeated at 20 ms, 40 ms ... up to the period without
being counted, so that a container that is up quickly is known to be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from core.api import views
from core.node.checks import Checked, Target, check

__all__ = ["KINDS", "ContainerProbes", "OnResult"]

KINDS = ("startup", "readiness", "liveness")
OnResult = Callable[[str, bool, str], None]
"""(kind, whether it holds, message), when a probe's thresholds say that this changed."""
OnFailure = Callable[[str, str], None]
"""(kind, message) of every counted failure."""

RAMP = 0.02
ANNOUNCEMENT = 1.0
"""Seconds that a container which announces itself is left alone at first: it starts sooner where nobody asks it whether it has."""


def action(probe: views.Probe) -> Mapping[str, Any]:
    """The probe's handler, in the form that `check` takes."""
    found = {"httpGet": probe.http_get, "tcpSocket": probe.tcp_socket, "exec": probe.exec, "grpc": probe.grpc}
    return {name: value for name, value in found.items() if value}


class _Probe:
    """One probe: counts, and its one timer or task."""

    def __init__(self, kind: str, probe: views.Probe, target: Target, result: OnResult, failure: OnFailure) -> None:
        self.kind = kind
        self.holds: bool | None = None
        self._probe = probe
        self._target = target
        self._result = result
        self._failure = failure
        self._successes = self._failures = 0
        self._ramp = RAMP
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopped = False

    def start(self, delay: float) -> None:
        """The first look, in `delay` seconds."""
        self._after(delay)

    def stop(self) -> None:
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def succeed(self) -> None:
        """A success that didn't need a look; one that is under way has nothing more to find out."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if not self._stopped:
            self._count(Checked(True))
            if not self._stopped:
                self._after(self._probe.period_seconds)

    def _after(self, delay: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay, self._begin)

    def _begin(self) -> None:
        if self._task is None and not self._stopped:
            self._task = asyncio.get_running_loop().create_task(self._look(), name=f"{self.kind} probe")

    async def _look(self) -> None:
        try:
            found = await check(action(self._probe), self._target, max(self._probe.timeout_seconds, 1))
        finally:
            if self._task is asyncio.current_task():
                self._task = None
        if self._stopped:
            return
        if not found.ok and self.holds is None and self._ramp < self._probe.period_seconds:
            delay, self._ramp = self._ramp, self._ramp * 2
        else:
            self._count(found)
            delay = self._probe.period_seconds
        if not self._stopped:
            self._after(delay)

    def _count(self, found: Checked) -> None:
        if found.ok:
            self._successes, self._failures = self._successes + 1, 0
            if self._successes >= self._probe.success_threshold and self.holds is not True:
                self._change(True, "")
        else:
            self._successes, self._failures = 0, self._failures + 1
            self._failure(self.kind, found.message)
            if self._failures >= self._probe.failure_threshold and self.holds is not False:
                self._change(False, found.message)

    def _change(self, holds: bool, message: str) -> None:
        self.holds = holds
        self._result(self.kind, holds, message)


class ContainerProbes:
    """The probes of one running container. Made when it has started, stopped when it ends."""

    def __init__(self, container: views.Container, target: Target, on_result: OnResult, on_failure: OnFailure) -> None:
        specs = zip(KINDS, (container.startup_probe, container.readiness_probe, container.liveness_probe), strict=True)
        self._on_result = on_result
        self._specs = {kind: probe for kind, probe in specs if probe is not None}
        self._probes = {
            kind: _Probe(kind, probe, target, self._changed, on_failure) for kind, probe in self._specs.items()
        }
        self._running = False
        self._patience = 0.0

    def start(self, *, started: bool = False, age: float = 0.0, announces: bool = False) -> None:
        """`started`: startup succeeded before (an agent's restart); `age` is the seconds that the container has run; `announces`:
        it is expected to say itself that it is ready."""
        self._patience = ANNOUNCEMENT if announces else 0.0
        if "startup" in self._probes and not started:
            self._begin("startup", age, self._patience)
        else:
            self._go_on(age)

    def announce(self) -> None:
        """The container said that it is ready."""
        self._patience = 0.0
        startup, readiness = self._probes.get("startup"), self._probes.get("readiness")
        if startup is not None and startup.holds is None:
            startup.succeed()
        if readiness is not None and readiness.holds is not True:
            readiness.succeed()

    def stop(self) -> None:
        for each in self._probes.values():
            each.stop()

    def _begin(self, kind: str, age: float = 0.0, least: float = 0.0) -> None:
        """The first look at it, in `least` seconds or more."""
        self._probes[kind].start(max(self._specs[kind].initial_delay_seconds - age, least))

    def _go_on(self, age: float = 0.0, *, started: bool = False) -> None:
        """`started`: its startup has just succeeded. It lives then, which needs no look before the first period is over: a container that
        has just become ready has calls to answer that wait for it."""
        if not self._running:
            self._running = True
            if "readiness" in self._probes:
                self._begin("readiness", age, self._patience)
            if "liveness" in self._probes:
                self._begin("liveness", age, float(self._specs["liveness"].period_seconds) if started else 0.0)

    def _changed(self, kind: str, holds: bool, message: str) -> None:
        if kind == "startup" and holds:
            self._probes["startup"].stop()
        self._on_result(kind, holds, message)
        if kind == "startup" and holds:
            self._go_on(started=True)
