"""Commands that are forked end as those do whose program is started."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--version"], 0),
        (["status"], 4),
        (["deploy", "--cpu"], 2),
        (["deploy", "/surely/not/there"], 1),
        (["nothing"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_they_say(platforms: Any, forked_commands: Any, words: list[str], code: int) -> None:
    platform = platforms()
    executed = subprocess.run([*platform.command, *words], env=platform.environment, capture_output=True, text=True)
    forked = forked_commands.run(words, platform.environment, 60)
    assert (forked.returncode, forked.stdout, forked.stderr) == (executed.returncode, executed.stdout, executed.stderr)
    assert forked.returncode == code


def test_one_that_takes_too_long_is_ended(platforms: Any, forked_commands: Any) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        forked_commands.run(["status"], platforms().environment, -1.0)
