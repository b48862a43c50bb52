"""What commands print: tables for people, JSON and YAML for programs, progress on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from core.clock import parse_time

__all__ = ["Format", "age", "duration", "echo", "emit", "note", "table"]


class Format(StrEnum):
    """`-o`."""

    table = "table"
    json = "json"
    yaml = "yaml"


def echo(text: str = "") -> None:
    """A line of the command's result."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """A line about the work, beside the result."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def emit(value: Any, form: Format) -> None:
    """A document as JSON or YAML; tables are the caller's."""
    if form is Format.yaml:
        import yaml

        sys.stdout.write(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))
    else:
        sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], empty: str = "nothing here") -> None:
    """Columns as wide as their widest cell; `empty` goes to standard error where there are no rows."""
    if not rows:
        note(empty)
        return
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(header), *(len(row[index]) for row in cells)) for index, header in enumerate(headers)]
    for row in (list(headers), *cells):
        echo("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def duration(seconds: float) -> str:
    """`45s`, `3m10s`, `5h2m`, `4d3h`: two units at most, as kubectl shows ages."""
    whole = max(0, int(seconds))
    if whole < 120:
        return f"{whole}s"
    if whole < 600:
        return f"{whole // 60}m{whole % 60}s" if whole % 60 else f"{whole // 60}m"
    if whole < 3 * 3600:
        return f"{whole // 60}m"
    if whole < 48 * 3600:
        hours, minutes = divmod(whole // 60, 60)
        return f"{hours}h{minutes}m" if hours < 8 and minutes else f"{hours}h"
    days, hours = divmod(whole // 3600, 24)
    return f"{days}d{hours}h" if days < 8 and hours else f"{days}d"


def age(timestamp: str | None, now: float) -> str:
    """How long ago a `metav1.Time` was; `<unknown>` where there is none. `now` is seconds since the epoch."""
    return duration(now - parse_time(timestamp)) if timestamp else "<unknown>"
