"""What can go wrong before or while the platform runs, each said so that its reader knows what to do next."""

from __future__ import annotations

from core.errors import FaasliteError

__all__ = ["AlreadyRunning", "LaunchError", "NotRunning"]


class LaunchError(FaasliteError):
    """The platform can't be started as asked; the message says why and what to do."""


class AlreadyRunning(LaunchError):
    """Another supervisor holds the data dir."""


class NotRunning(LaunchError):
    """No supervisor answers in this data dir."""
