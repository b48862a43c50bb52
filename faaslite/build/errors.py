"""Why a folder can't be deployed."""

from __future__ import annotations

from core.errors import FaasliteError

__all__ = ["BuildError"]


class BuildError(FaasliteError):
    """The message names the file and what to do about it."""
