"""What the node's containers use, for the kubelet's `/stats/summary` and `/metrics/resource`.

Nothing is sampled until somebody asks: a node that nobody looks at spends nothing on it. Usage of CPU is a rate over the window
between two samples, as metrics-server has it; where there is no sample of the last minute, a second one follows after a moment.
Decisions are pure; `Sampler` does the reading.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from core.clock import timestamp
from core.node.runtime.base import RuntimeFailure, Stats

__all__ = ["Metered", "Reading", "Sample", "Sampler", "Usage", "own_usage", "prometheus", "summary", "usage"]

Document = dict[str, Any]

FRESH = 10.0
"""Seconds for which a sample answers whoever asks."""
STALE = 60.0
"""Seconds after which a sample is too old to be the start of a window."""
FIRST_WINDOW = 1.0
"""Seconds between the two samples of a node that nobody has looked at lately."""
_AT_ONCE = 16


class Metered(NamedTuple):
    """A container that runs. `started` in seconds since the epoch."""

    id: str
    namespace: str
    pod: str
    uid: str
    name: str
    started: float


class Reading(NamedTuple):
    """A container's counters at a time: CPU time in nanoseconds since its start, memory in bytes."""

    metered: Metered
    at: float
    cpu_ns: int
    memory: int


@dataclass(frozen=True, slots=True)
class Sample:
    """All readings of one moment, by container id. `own` is the agent's."""

    at: float
    own: Reading
    readings: Mapping[str, Reading] = field(default_factory=dict)


class Usage(NamedTuple):
    """`nanocores` is the average over the `window` seconds that end at the reading."""

    reading: Reading
    nanocores: int
    window: float


def usage(before: Reading | None, after: Reading) -> Usage | None:
    """Between two readings of a container; one that started after the first is counted from its start. None within its first second."""
    if before is None or before.metered.started != after.metered.started:
        before = Reading(after.metered, after.metered.started, 0, 0)
    window = after.at - before.at
    if window < FIRST_WINDOW / 2:
        return None
    return Usage(after, int(max(0, after.cpu_ns - before.cpu_ns) / window), window)


def own_usage() -> Stats:
    """Of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Stats(cpu_ns=time.process_time_ns(), memory=pages * os.sysconf("SC_PAGE_SIZE"))


class Sampler:
    """`running` names what is to be read, `read` reads a container's counters, `own` the agent's own."""

    def __init__(
        self,
        running: Callable[[], Sequence[Metered]],
        read: Callable[[str], Awaitable[Stats]],
        own: Callable[[], Stats],
        clock: Callable[[], float],
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._running = running
        self._read = read
        self._own = own
        self._clock = clock
        self._pause = pause
        self._started = clock()
        self._before: Sample | None = None
        self._last: Sample | None = None
        self._ended_ns = 0
        self._turn = asyncio.Lock()

    async def window(self) -> tuple[Sample, Sample]:
        """Two samples, the later one at most `FRESH` seconds old. Who asks meanwhile waits for the same ones."""
        async with self._turn:
            now = self._clock()
            if self._last is not None and self._before is not None and now - self._last.at < FRESH:
                return self._before, self._last
            if self._last is None or now - self._last.at > STALE:
                await self._take(now)
                await self._pause(FIRST_WINDOW)
            await self._take(self._clock())
            assert self._before is not None and self._last is not None
            return self._before, self._last

    async def now(self) -> Sample:
        """The newest sample, at most `FRESH` seconds old: for counters, which need no window."""
        async with self._turn:
            now = self._clock()
            if self._last is None or now - self._last.at >= FRESH:
                await self._take(now)
            assert self._last is not None
            return self._last

    @property
    def ended_ns(self) -> int:
        """CPU time of containers that have ended since they were first read, so that the node's counter never falls."""
        return self._ended_ns

    async def _take(self, now: float) -> None:
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(metered: Metered) -> Reading | None:
            async with gate:
                try:
                    found = await self._read(metered.id)
                except (RuntimeFailure, TimeoutError):
                    return None  # it has just ended, or the engine is busy: the rest can still be told
            return Reading(metered, self._clock(), found.cpu_ns, found.memory)

        found = [each for each in await asyncio.gather(*map(one, self._running())) if each is not None]
        used = self._own()
        own = Reading(Metered("", "", "", "", "kubelet", self._started), self._clock(), used.cpu_ns, used.memory)
        taken = Sample(now, own, {each.metered.id: each for each in found})
        if self._last is not None:
            gone = self._last.readings.keys() - taken.readings.keys()
            self._ended_ns += sum(self._last.readings[each].cpu_ns for each in gone)
        self._before, self._last = self._last, taken


# The kubelet's forms


def _cpu(reading: Reading, found: Usage | None) -> Document:
    document: Document = {"time": timestamp(reading.at), "usageCoreNanoSeconds": reading.cpu_ns}
    if found is not None:
        document["usageNanoCores"] = found.nanocores
        document["windowSeconds"] = round(found.window, 3)
    return document


def _memory(readings: Sequence[Reading], at: float) -> Document:
    used = sum(each.memory for each in readings)
    return {"time": timestamp(at), "usageBytes": used, "workingSetBytes": used, "rssBytes": used}


def _together(readings: Sequence[Reading], found: Sequence[Usage], at: float, extra_ns: int = 0) -> Document:
    document: Document = {
        "time": timestamp(at),
        "usageCoreNanoSeconds": sum(each.cpu_ns for each in readings) + extra_ns,
    }
    if found:
        document["usageNanoCores"] = sum(each.nanocores for each in found)
        document["windowSeconds"] = round(max(each.window for each in found), 3)
    return document


def summary(node: str, started: float, before: Sample, after: Sample, ended_ns: int = 0) -> Document:
    """The kubelet's stats Summary (`stats.k8s.io/v1alpha1`), with the window of each rate beside it (`windowSeconds`).

    What the node uses is what its containers and the agent use: nodes that share a machine don't count each other's.
    """
    own = usage(before.own, after.own)
    pods: dict[str, Document] = {}
    grouped: dict[str, list[Reading]] = {}
    rates: dict[str, Usage | None] = {}
    for key, reading in after.readings.items():
        grouped.setdefault(reading.metered.uid, []).append(reading)
        rates[key] = usage(before.readings.get(key), reading)
    for uid, readings in grouped.items():
        first = readings[0].metered
        found = [each for reading in readings if (each := rates[reading.metered.id]) is not None]
        pods[uid] = {
            "podRef": {"name": first.pod, "namespace": first.namespace, "uid": uid},
            "startTime": timestamp(min(each.metered.started for each in readings)),
            "containers": [
                {
                    "name": each.metered.name,
                    "startTime": timestamp(each.metered.started),
                    "cpu": _cpu(each, rates[each.metered.id]),
                    "memory": _memory([each], each.at),
                }
                for each in readings
            ],
            "cpu": _together(readings, found, after.at),
            "memory": _memory(readings, after.at),
        }
    everything = [after.own, *after.readings.values()]
    all_rates = [each for each in (own, *rates.values()) if each is not None]
    kubelet = {
        "name": "kubelet",
        "startTime": timestamp(started),
        "cpu": _cpu(after.own, own),
        "memory": _memory([after.own], after.own.at),
    }
    return {
        "node": {
            "nodeName": node,
            "systemContainers": [kubelet],
            "startTime": timestamp(started),
            "cpu": _together(everything, all_rates, after.at, ended_ns),
            "memory": _memory(everything, after.at),
        },
        "pods": list(pods.values()),
    }


def prometheus(sample: Sample, ended_ns: int) -> str:
    """The kubelet's `/metrics/resource`: what a node, its Pods and their containers use, as counters and gauges."""
    readings = list(sample.readings.values())
    everything = [sample.own, *readings]
    pods: dict[tuple[str, str], list[Reading]] = {}
    for each in readings:
        pods.setdefault((each.metered.namespace, each.metered.pod), []).append(each)
    lines: list[str] = []

    def family(name: str, kind: str, text: str, rows: Sequence[tuple[str, float, float]]) -> None:
        lines.extend((f"# HELP {name} [STABLE] {text}", f"# TYPE {name} {kind}"))
        lines.extend(f"{name}{labels} {float(value)!r} {int(at * 1000)}" for labels, value, at in rows)

    def container(each: Reading) -> str:
        found = each.metered
        return f'{{container="{found.name}",namespace="{found.namespace}",pod="{found.pod}"}}'

    def pod(key: tuple[str, str]) -> str:
        return f'{{namespace="{key[0]}",pod="{key[1]}"}}'

    cpu, memory = "Cumulative cpu time consumed by the {} in core-seconds", "Current working set of the {} in bytes"
    family("container_cpu_usage_seconds_total", "counter", cpu.format("container"),
           [(container(each), each.cpu_ns / 1e9, each.at) for each in readings])  # fmt: skip
    family("container_memory_working_set_bytes", "gauge", memory.format("container"),
           [(container(each), each.memory, each.at) for each in readings])  # fmt: skip
    family("container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds",
           [(container(each), each.metered.started, each.at) for each in readings])  # fmt: skip
    family("node_cpu_usage_seconds_total", "counter", cpu.format("node"),
           [("", (sum(each.cpu_ns for each in everything) + ended_ns) / 1e9, sample.at)])  # fmt: skip
    family("node_memory_working_set_bytes", "gauge", memory.format("node"),
           [("", sum(each.memory for each in everything), sample.at)])  # fmt: skip
    family("pod_cpu_usage_seconds_total", "counter", cpu.format("pod"),
           [(pod(key), sum(each.cpu_ns for each in found) / 1e9, sample.at) for key, found in pods.items()])  # fmt: skip
    family("pod_memory_working_set_bytes", "gauge", memory.format("pod"),
           [(pod(key), sum(each.memory for each in found), sample.at) for key, found in pods.items()])  # fmt: skip
    lines += ["# HELP resource_scrape_error [STABLE] 1 if there was an error while getting container metrics, 0 otherwise",
              "# TYPE resource_scrape_error gauge", "resource_scrape_error 0"]  # fmt: skip
    return "\n".join(lines) + "\n"
