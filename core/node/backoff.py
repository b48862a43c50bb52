"""How long a node waits before it tries a failing thing again. Pure."""

from __future__ import annotations

__all__ = ["LONGEST", "RESET_AFTER", "pull_delay", "restart_delay"]

FIRST = 10.0
LONGEST = 300.0
RESET_AFTER = 600.0
"""A container that ran this long starts again with a clean slate."""


def restart_delay(restarts: int) -> float:
    """Seconds between an exit and the next start, by how often the container was restarted in a row: 0, 10, 20 ... 300."""
    return 0.0 if restarts <= 0 else float(min(FIRST * 2.0 ** min(restarts - 1, 10), LONGEST))


def pull_delay(failures: int) -> float:
    """Seconds until an image is pulled again, by how often that failed: 10, 20 ... 300."""
    return restart_delay(failures)
