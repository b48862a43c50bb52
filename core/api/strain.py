"""Limits that a running container has run into, as nodes say it of its Pod: the condition `WITHIN_LIMITS`, which Pods have once that happened."""

from __future__ import annotations

__all__ = ["LOST", "STRAINS", "WITHIN_LIMITS"]

LOST = "The container could not be located when its sandbox was lost"
"""The message of a container that ended with its node's runtime, and not by itself."""

WITHIN_LIMITS = "faaslite.dev/WithinLimits"
"""False from the node's next look after a limit was reached until a minute without it; the reason is one of `STRAINS`."""

STRAINS = {
    "OOMKilled": "a process of the container was killed because its memory ran out: raise its memory limit",
    "TooManyProcesses": "the container reached the limit of processes and threads: end those that a call has started",
    "DiskFull": "the container's temporary files take all the room that there is for them: remove them when a call is done",
}
"""Reasons, with what they mean, the weightiest first."""
