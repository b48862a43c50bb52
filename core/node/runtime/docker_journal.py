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

__all__ = ["Adoption"]

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
