"""`faas usage`: what functions have used: calls, run time, cold starts, instances, memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from cli.context import gateway
from cli.options import AllNamespaces, Namespace, Output
from cli.output import Format, duration, emit, table

__all__ = ["register", "rows"]

HEADERS = ("FUNCTION", "HTTP", "ASYNC", "CRON", "FAILED", "RUN", "COLD STARTS", "INSTANCES", "MEMORY")
_FINE = ("1xx", "2xx", "3xx", "Succeeded", "Skipped", "Canceled")


def register(app: typer.Typer) -> None:
    app.command("usage")(usage)


def usage(
    namespace: Namespace = "default",
    all_namespaces: AllNamespaces = False,
    since: Annotated[
        str, typer.Option(help="A span (30d, 12h), or a day (2026-01-31, UTC); whole days are told.")
    ] = "30d",
    output: Output = Format.table,
) -> None:
    """What functions have used, by function; with -o json by day too."""
    query = urlencode({"namespace": "" if all_namespaces else namespace, "since": since})
    found: dict[str, Any] = gateway().system("GET", f"/system/usage?{query}")
    if output is not Format.table:
        emit(found, output)
        return
    where = "anywhere" if all_namespaces else f"in {namespace}"
    table(HEADERS, rows(found["items"], named=all_namespaces), empty=f"nothing was used {where} since {found['since']}")


def rows(items: Iterable[Mapping[str, Any]], *, named: bool) -> list[tuple[object, ...]]:
    """A row for each function, its days together; with `named` it has its namespace."""
    sums: dict[tuple[str, str], dict[str, float]] = {}
    for item in items:
        into = sums.setdefault((item["namespace"], item["function"]), {})

        def add(what: str, amount: float, into: dict[str, float] = into) -> None:
            into[what] = into.get(what, 0) + amount

        for trigger, results in item["calls"].items():
            add(trigger, sum(results.values()))
            add("failed", sum(count for result, count in results.items() if result not in _FINE))
        for what in ("runSeconds", "coldStarts", "instanceSeconds", "memoryGiBSeconds"):
            add(what, item[what])
    return [
        (
            f"{function}.{namespace}" if named else function,
            *(round(of.get(each, 0)) for each in ("http", "async", "cron", "failed")),
            duration(of["runSeconds"]),
            round(of["coldStarts"]),
            f"{of['instanceSeconds'] / 3600:.2f} h",
            f"{of['memoryGiBSeconds'] / 3600:.2f} GiB h",
        )
        for (namespace, function), of in sorted(sums.items())
    ]
