"""What columns of tables are made of: paths into documents, times as kubectl says them, selectors as text."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from core.clock import parse_time

__all__ = [
    "AGE", "NAME", "NONE", "Cell", "Column", "Document", "age", "ago", "at", "count", "creation", "dig", "human_duration", "integer",
    "joined", "labels_text", "selector_text", "text", "wide",
]  # fmt: skip

Document = dict[str, Any]
Cell = Callable[[Document, float], Any]
NONE = "<none>"


class Column:
    """One column: its definition for the Table, and the cell that it has of a document at a time.

    `fixed` says of a document whether its cell is the same at any time, and may so be kept; False says that nothing is known.
    """

    __slots__ = ("cell", "definition", "fixed", "name")

    def __init__(
        self,
        name: str,
        cell: Cell,
        type_: str = "string",
        format_: str = "",
        priority: int = 0,
        description: str = "",
        *,
        fixed: bool | Callable[[Document], bool] = False,
    ) -> None:
        self.name = name
        self.cell = cell
        self.fixed = fixed
        self.definition = {
            "name": name,
            "type": type_,
            "format": format_,
            "description": description,
            "priority": priority,
        }


@functools.lru_cache(maxsize=1024)
def _parts(path: str) -> tuple[str, ...]:
    return tuple(path.split("."))


def dig(document: Any, path: str) -> Any:
    """The value at a dotted path, None where there is none."""
    found = document
    for part in _parts(path):
        if type(found) is not dict:
            return None
        found = found.get(part)
    return found


def human_duration(seconds: float) -> str:
    """A length of time in the two largest units that matter, as kubectl writes it (`5m30s`, `3h`, `2d4h`, `400d`)."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    if whole < 0:
        return "0s"
    minutes, hours = whole // 60, whole // 3600
    if whole < 120:
        return f"{whole}s"
    if minutes < 10:
        return _pair(minutes, "m", whole % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _pair(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    days = hours // 24
    if hours < 192:
        return _pair(days, "d", hours % 24, "h")
    if days < 365 * 2:
        return f"{days}d"
    if days < 365 * 8:
        return _pair(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _pair(first: int, unit: str, second: int, smaller: str) -> str:
    return f"{first}{unit}{second}{smaller}" if second else f"{first}{unit}"


def ago(time: str | None, now: float, *, until: str | None = None, missing: str = "<unknown>") -> str:
    """How long before `now` (or before `until`) an RFC 3339 time was; `missing` where there is none."""
    if not time:
        return missing
    try:
        return human_duration((parse_time(until) if until else now) - parse_time(time))
    except (ValueError, TypeError):
        return "<invalid>"


def age(time: str | None, now: float) -> str:
    return ago(time, now)


def creation(document: Document, now: float) -> Any:
    return dig(document, "metadata.creationTimestamp")


def at(path: str, missing: Any = "") -> Cell:
    """A cell with what is at a path."""
    parts = _parts(path)

    def cell(document: Document, now: float) -> Any:
        found: Any = document
        for part in parts:
            if type(found) is not dict:
                return missing
            found = found.get(part)
        return missing if found is None or found == "" else str(found)

    return cell


def joined(path: str, *fields: str) -> Cell:
    """A cell with the first of `fields` that each item of a list has, by commas."""

    def cell(document: Document, now: float) -> str:
        items = dig(document, path) or ()
        return ",".join(str(next((each[field] for field in fields if each.get(field)), "")) for each in items)

    return cell


def text(name: str, path: str, missing: str = "") -> Column:
    return Column(name, at(path, missing), fixed=True)


def wide(name: str, cell: Cell, *, fixed: bool = False) -> Column:
    return Column(name, cell, priority=1, fixed=fixed)


def integer(name: str, path: str) -> Column:
    return Column(name, lambda document, now: dig(document, path) or 0, "integer", fixed=True)


def count(name: str, *paths: str) -> Column:
    """How many entries the maps or lists at the paths have."""
    return Column(
        name, lambda document, now: sum(len(dig(document, path) or ()) for path in paths), "integer", fixed=True
    )


def labels_text(labels: dict[str, str] | None) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items())) or NONE


def selector_text(selector: Any) -> str:
    """A label selector (or the plain map of older kinds) in the form of a query."""
    if type(selector) is not dict or not selector:
        return NONE
    if "matchLabels" not in selector and "matchExpressions" not in selector:
        return labels_text(selector)
    found = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for each in selector.get("matchExpressions") or ():
        name, values = each.get("key", ""), ",".join(sorted(str(value) for value in each.get("values") or ()))
        forms = {
            "In": f"{name} in ({values})",
            "NotIn": f"{name} notin ({values})",
            "Exists": name,
            "DoesNotExist": f"!{name}",
        }
        found.append(forms.get(each.get("operator", ""), name))
    return ",".join(found) or NONE


NAME = Column("Name", at("metadata.name"), "string", "name", fixed=True)
AGE = Column("Age", lambda document, now: ago(dig(document, "metadata.creationTimestamp"), now))
