"""`faas why`: what happened to a call and why it waited; what is wrong with a function; why it was scaled as it was."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import calls
from cli.context import run
from cli.errors import NotThere
from cli.functions import state_of
from cli.options import Namespace, Output
from cli.output import Format, age, echo, emit, note, table
from core.api.meta import Document
from core.clock import parse_time

if TYPE_CHECKING:
    from core.client.rest import Client

__all__ = ["register", "story"]

SCALED = "Scaled"
"""The reason of the Events that the autoscaler writes on ReplicaSets."""


def register(app: typer.Typer) -> None:
    app.command()(why)


def why(
    what: Annotated[
        str, typer.Argument(metavar="CALL|NAME|scaled", help="A call's id, a function, or the word `scaled`.")
    ],
    name: Annotated[str, typer.Argument(help="With `scaled`: the function.")] = "",
    namespace: Namespace = "default",
    output: Output = Format.table,
) -> None:
    """Say what happened to a call and why, what is wrong with a function, or (`faas why scaled NAME`) why it was scaled as it was."""
    if what == "scaled" and name:
        _scaled(name, namespace, output)
        return
    try:
        record = calls.fetch(what)
    except NotThere as error:
        if not _explained(what, namespace, output):
            raise NotThere(f"{error}, nor a function of that name in {namespace}") from None
        return
    if output is not Format.table:
        emit({"call": record, "story": [f"{at} {text}".strip() for at, text in story(record)]}, output)
        return
    echo(f"{record['id']}  {record['function']}.{record['namespace']}  {record['status']}")
    phases = record["phases"]
    named = (("queued", phases["queued"]), ("cold start", phases["coldStart"]), ("ran", phases["run"]))
    echo("  ".join(f"{each} {calls.seconds(value)}" for each, value in named if value is not None) or "not run yet")
    echo()
    table(("WHEN", "WHAT"), story(record))


def _explained(name: str, namespace: str, output: Format) -> bool:
    """Say what is wrong with a function; False where there is none of that name."""

    async def ask(client: Client) -> tuple[Document | None, list[Document]]:
        from core.api.kinds import EVENT
        from core.errors import BadRequest, NotFound
        from faaslite.api.names import FUNCTION

        try:
            found = await client.get(FUNCTION, name, namespace)
        except (NotFound, BadRequest):
            return None, []
        events, _ = await client.list(EVENT, namespace, fields="involvedObject.kind=Function")
        return found, [each for each in events if (each.get("involvedObject") or {}).get("name") == name]

    function, events = run(ask)
    if function is None:
        return False
    conditions = (function.get("status") or {}).get("conditions") or []
    wrong = [each for each in conditions if each["status"] != "True"]
    warnings = sorted(
        (each for each in events if each.get("type") == "Warning"),
        key=lambda each: each.get("lastTimestamp") or "",
        reverse=True,
    )
    if output is not Format.table:
        emit({"function": name, "conditions": conditions, "warnings": warnings}, output)
        return True
    now = time.time()
    echo(f"{name}.{namespace}  {state_of(function)}")
    # What is not ready follows from the others: it says nothing that they don't.
    said: set[str] = set()
    for each in wrong:
        text = str(each.get("message") or "")
        if text not in said:
            said.add(text)
            echo(f"  {each['type']} is {each['status']}: {each.get('reason') or ''}{': ' + text if text else ''}")
    if not wrong:
        echo("  nothing is wrong that the cluster knows of")
    if warnings:
        echo()
        rows = [
            (age(each.get("lastTimestamp"), now), each.get("count") or 1, each.get("reason"), each.get("message"))
            for each in warnings[:10]
        ]
        table(("AGE", "TIMES", "WARNING", "WHAT"), rows)
    return True


def story(record: dict[str, Any]) -> list[tuple[str, str]]:
    """What happened, in order: times since the call was accepted, and the reason of each wait and error."""
    begin = parse_time(record["acceptedAt"])
    rows: list[tuple[str, str]] = []

    def tell(at: str | None, text: str) -> None:
        rows.append((f"+{calls.seconds(max(parse_time(at) - begin, 0.0))}" if at else "", text))

    how = f"fired by cron {record['cron']}, for {record['scheduledAt']}" if record["cron"] else "accepted"
    if record["replayOf"]:
        how += f", a replay of {record['replayOf']}"
    tell(record["acceptedAt"], how)
    before = record["acceptedAt"]
    refused = 0
    for each in record["tries"]:
        if each["finishedAt"] is None:
            tell(None, f"a try was lost: {each['error']}; its lease lapsed, and it was tried again")
            continue
        waited = parse_time(each["startedAt"]) - parse_time(before)
        if not each["executed"]:
            refused += 1
            tell(each["finishedAt"], f"no instance could take it: {each['error']}; this doesn't count as an attempt")
        else:
            tell(each["startedAt"], f"sent to the gateway, after {calls.seconds(max(waited, 0.0))} in the queue")
            if each["coldStart"]:
                tell(None, f"waited {calls.seconds(each['coldStart'])} for an instance to start")
            status = each["httpStatus"] or "no answer"
            tell(each["finishedAt"], f"{status}{': ' + each['error'] if each['error'] else ''}")
        before = each["finishedAt"]
    if record["status"] == "Queued":
        tell(None, _waiting(record))
    elif record["status"] == "Running":
        tell(record["startedAt"], "runs now")
    else:
        error = f": {record['error']}" if record["error"] else ""
        tell(record["finishedAt"], f"{record['status']}{error}")
    if record["status"] == "DeadLetter":
        tell(None, f"`faas calls redrive {record['id']}` puts it back into the queue")
    if record["callback"]:
        tell(None, f"callback to {record['callback']['url']}: {record['callback']['state']}")
    return rows


def _waiting(record: dict[str, Any]) -> str:
    due = record["nextAttemptAt"]
    left = parse_time(due) - time.time() if due else 0.0
    if left > 0.5:
        return f"waits for its next try, in {calls.seconds(left)}"
    return "is due, and waits for its turn: other calls of its function run, or jobs isn't leading (`faas status`)"


def _scaled(name: str, namespace: str, output: Format) -> None:
    found = run(lambda client: _decisions(client, name, namespace))
    if output is not Format.table:
        emit(found, output)
        return
    now = time.time()
    rows = [(age(each["at"], now), each["revision"], each["times"], each["message"]) for each in found]
    table(("AGE", "REVISION", "TIMES", "DECISION"), rows, f"no decision on {name} in the last hour")
    if found:
        note("newest first; repeated decisions are one line")


async def _decisions(client: Client, name: str, namespace: str) -> list[dict[str, Any]]:
    """The autoscaler's Events on the function's ReplicaSets, newest first."""
    from core.api.kinds import EVENT
    from faaslite.api.names import FUNCTION

    await client.get(FUNCTION, name, namespace)
    events, _ = await client.list(EVENT, namespace, fields="involvedObject.kind=ReplicaSet")
    found = []
    for each in events:
        about = each.get("involvedObject") or {}
        revision = str(about.get("name") or "")
        if each.get("reason") != SCALED or revision.rpartition("-")[0] != name:
            continue
        at = each.get("lastTimestamp") or each.get("firstTimestamp") or each.get("eventTime")
        found.append(
            {"at": at, "revision": revision, "times": each.get("count") or 1, "message": each.get("message") or ""}
        )
    return sorted(found, key=lambda each: each["at"] or "", reverse=True)
