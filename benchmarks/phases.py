"""The phases of cold starts, from the marks of a trace (`core.trace`): what each took, adding up to the whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.harness import percentile

__all__ = ["CHAIN", "Call", "breakdown", "phases", "read"]

CHAIN = (
    ("held", "gateway: accepted, found no instance"),
    ("poked", "autoscaler: got the poke"),
    ("scaled", "autoscaler: scale written"),
    ("created", "ReplicaSet controller: Pod created"),
    ("bound", "scheduler: Pod bound"),
    ("seen", "agent: saw the Pod"),
    ("volumes", "agent: volumes ready"),
    ("asked", "agent: asked the sandboxer"),
    ("called", "sandboxer: got the call"),
    ("adopted", "sandboxer: child adopted"),
    ("ready", "shim: loaded, said ready"),
    ("told", "agent: heard of it"),
    ("posting", "agent: status sent"),
    ("dispatched", "gateway: saw it, sent the call"),
    ("replied", "gateway: got the reply"),
    ("done", "client: first byte"),
)
"""Marks in their order, each with what has just happened then; `done` is the client's own."""


class Call:
    """One cold start as its client saw it: the revision (`namespace/name`), and CLOCK_MONOTONIC at its begin and first byte."""

    __slots__ = ("began", "done", "revision")

    def __init__(self, revision: str, began: int, done: int) -> None:
        self.revision, self.began, self.done = revision, began, done


def read(folder: Path) -> dict[str, list[tuple[str, int]]]:
    """The marks of every process by revision, a Pod's under that of its revision: (event, nanoseconds), in order of time."""
    found: dict[str, list[tuple[str, int]]] = {}
    for path in folder.iterdir():
        for line in path.read_text().splitlines():
            at, event, key = line.split(" ")
            found.setdefault(key, []).append((event, int(at)))
            found.setdefault(key.rpartition("-")[0], []).append((event, int(at)))
    return {key: sorted(marks, key=lambda each: each[1]) for key, marks in found.items()}


def phases(call: Call, marks: Sequence[tuple[str, int]]) -> dict[str, float]:
    """Milliseconds of each phase of one call; they add up to the time to its first byte.

    A mark that is missing, or that came after a later one's, leaves its time to the next phase.
    """
    first: dict[str, int] = {"done": call.done}
    for event, at in marks:
        if call.began <= at <= call.done:
            first.setdefault(event, at)
    found: dict[str, float] = {}
    previous = call.began
    for event, _ in CHAIN:
        at = max(first.get(event, previous), previous)
        found[event] = (at - previous) / 1e6
        previous = at
    return found


def breakdown(
    calls: Iterable[Call], marks: Mapping[str, Sequence[tuple[str, int]]]
) -> dict[str, tuple[float, float, float]]:
    """By phase: (mean, p50, p99) in milliseconds over all calls. The means add up to the mean of the whole."""
    each = [phases(call, marks.get(call.revision, ())) for call in calls]
    return (
        {
            event: (
                sum(one[event] for one in each) / len(each),
                percentile([one[event] for one in each], 50),
                percentile([one[event] for one in each], 99),
            )
            for event, _ in CHAIN
        }
        if each
        else {}
    )
