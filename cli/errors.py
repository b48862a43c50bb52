"""Exit codes, and the errors that carry them: one line that says what went wrong and what to do next.

0 success, 1 it failed, 2 wrong usage, 3 not found, 4 the platform can't be reached, 5 waited too long.
"""

from __future__ import annotations

from core.errors import ApiError, FaasliteError, NotFound, ServiceUnavailable

__all__ = ["CallFailed", "CliError", "NotThere", "TimedOut", "Unreachable", "Usage", "exit_code"]


class CliError(FaasliteError):
    """A command that failed."""

    exit_code = 1


class CallFailed(CliError):
    """The platform answered, with an error."""


class Usage(CliError):
    """What was asked makes no sense as asked."""

    exit_code = 2


class NotThere(CliError):
    """What was named doesn't exist."""

    exit_code = 3


class Unreachable(CliError):
    """Nothing answers where the platform should."""

    exit_code = 4


class TimedOut(CliError):
    """It hasn't happened within the time that was given."""

    exit_code = 5


def exit_code(error: FaasliteError) -> int:
    """The exit code that an error ends the command with."""
    if isinstance(error, CliError):
        return error.exit_code
    if isinstance(error, NotFound):
        return NotThere.exit_code
    if isinstance(error, ServiceUnavailable) or type(error).__name__ == "NotRunning":
        return Unreachable.exit_code
    if isinstance(error, ApiError):
        return CallFailed.exit_code
    return 1
