"""Which Pod a started container was given to: one file per container, since an engine can't change a container's labels.

The file is complete or absent, and there before the container is told; so an agent that was killed at any moment finds a container
either waiting or with its Pod. It need not outlive the machine: the container doesn't.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.clock import micro_time
from core.node.runtime.docker_spec import LABEL_SLOT

__all__ = ["Adoption", "Adoptions"]

_FILE = "adopted.json"


@dataclass(frozen=True, slots=True)
class Adoption:
    """`labels` are what the container would have been created with for its Pod; `at` is in seconds since the epoch."""

    labels: Mapping[str, str]
    env: Mapping[str, str]
    at: float

    def save(self, folder: Path) -> None:
        """Only its owner may read it: the environment may hold secrets."""
        data = json.dumps({"labels": dict(self.labels), "env": dict(self.env), "at": self.at}).encode()
        scratch = folder / f".{_FILE}"
        handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(handle, data)
        finally:
            os.close(handle)
        scratch.replace(folder / _FILE)

    @classmethod
    def load(cls, folder: Path) -> Adoption | None:
        """None where the container of that folder still waits, or waited until it ended."""
        try:
            found = json.loads((folder / _FILE).read_bytes())
        except FileNotFoundError:
            return None
        return cls(found["labels"], found["env"], float(found["at"]))


class Adoptions:
    """Of all containers below `root`, by the name of their folder (their *slot*)."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, Adoption] = {}

    def __contains__(self, slot: str) -> bool:
        return slot in self._known

    def add(self, slot: str, adoption: Adoption) -> None:
        self._known[slot] = adoption

    def forget(self, slot: str) -> None:
        self._known.pop(slot, None)

    def clear(self) -> None:
        self._known.clear()

    def env(self, slot: str) -> Mapping[str, str]:
        return self._known[slot].env

    def identified(self, inspected: dict[str, Any]) -> dict[str, Any] | None:
        """What the engine says of a container, with the labels of the Pod that it was given to; None for one that still waits."""
        labels = inspected["Config"]["Labels"]
        slot = labels.get(LABEL_SLOT, "")
        if not slot:
            return inspected
        adoption = self._known.get(slot) or Adoption.load(self._root / slot)
        if adoption is None:
            return None
        self._known[slot] = adoption
        labels |= adoption.labels
        # For its Pod it began when it was given to it.
        inspected["Created"] = inspected["State"]["StartedAt"] = micro_time(adoption.at)
        return inspected
