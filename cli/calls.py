"""`faas calls`: the records of calls that the platform made for somebody: by cron, or asynchronously."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, urlencode

import typer

from cli.context import connect, gateway
from cli.errors import CallFailed, TimedOut, Usage
from cli.options import AllNamespaces, Namespace, Output
from cli.output import Format, age, echo, emit, note, table

if TYPE_CHECKING:
    from core.client.light import LightTransport

__all__ = ["app", "ended", "fetch", "seconds"]

app = typer.Typer(help="Records of asynchronous and cron calls.", no_args_is_help=True, rich_markup_mode=None)

ENDED_WELL = ("Succeeded", "Skipped")
LONGEST_POLL = 60.0
"""Seconds of one request that waits; the gateway gives up on longer ones."""


@app.command("list")
def list_(
    function: Annotated[str, typer.Argument(help="Of one function only.")] = "",
    namespace: Namespace = "default",
    all_namespaces: AllNamespaces = False,
    status: Annotated[
        str, typer.Option("--status", "-s", help="Queued, Running, Succeeded, Failed, DeadLetter ...")
    ] = "",
    trigger: Annotated[str, typer.Option(help="async or cron.")] = "",
    dead: Annotated[bool, typer.Option("--dead", help="Dead letters only.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 50,
    output: Output = Format.table,
) -> None:
    """List call records, newest first."""
    filters = {"function": function, "status": "DeadLetter" if dead else status, "trigger": trigger}
    query = {"namespace": "" if all_namespaces else namespace, "limit": str(limit)}
    query |= {name: value for name, value in filters.items() if value}
    items: list[dict[str, Any]] = gateway().system("GET", f"/system/calls?{urlencode(query)}")["items"]
    if output is not Format.table:
        emit(items, output)
        return
    now = time.time()
    rows = [
        (
            each["id"],
            f"{each['function']}.{each['namespace']}" if all_namespaces else each["function"],
            each.get("cron") or each["trigger"],
            each["status"],
            each.get("attempts", 0),
            seconds((each.get("phases") or {}).get("run")),
            age(each.get("acceptedAt"), now),
            _short(each.get("error") or ""),
        )
        for each in items
    ]
    table(("CALL", "FUNCTION", "TRIGGER", "STATUS", "ATTEMPTS", "RAN", "AGE", "ERROR"), rows, "no such calls")


@app.command()
def get(call: str, output: Output = Format.table) -> None:
    """Show one call record whole."""
    show(fetch(call), output)


@app.command()
def wait(
    call: str,
    timeout: Annotated[float, typer.Option(help="Seconds; exit code 5 when they are over.")] = 300.0,
    output: Output = Format.table,
) -> None:
    """Wait until a call has ended, and show it. The exit code is 1 where it didn't succeed."""
    until = time.monotonic() + timeout
    while True:
        left = max(until - time.monotonic(), 0.0)
        record = gateway().system("GET", f"{_path(call)}/wait?timeout={min(left, LONGEST_POLL):.3f}")
        if ended(record):
            break
        if left <= 0:
            raise TimedOut(f"call {call} is still {record['status']} after {timeout:g} s; `faas why {call}` says why")
    show(record, output)
    if record["status"] not in ENDED_WELL:
        raise CallFailed(f"call {call} ended as {record['status']}: {record['error'] or record['httpStatus']}")


@app.command()
def cancel(
    call: str, reason: Annotated[str, typer.Option(help="Kept with the record.")] = "", output: Output = Format.table
) -> None:
    """End a call that waits or runs."""
    record = gateway().system("POST", f"{_path(call)}/cancel", body=_json({"reason": reason} if reason else {}))
    if output is Format.table:
        echo(f"{call} is {record['status']}")
    else:
        emit(record, output)


@app.command()
def replay(
    call: str,
    revision: Annotated[str, typer.Option(help="Of this revision (hello-00002), whatever the traffic says.")] = "",
    wait_: Annotated[bool, typer.Option("--wait", "-w", help="Wait for its end, and show it.")] = False,
    output: Output = Format.table,
) -> None:
    """Make the same call again, as a new one."""
    answer = gateway().system("POST", f"{_path(call)}/replay", body=_json({"revision": revision} if revision else {}))
    if wait_:
        wait(answer["callId"], 300.0, output)
    elif output is Format.table:
        echo(answer["callId"])
    else:
        emit(answer, output)


@app.command()
def redrive(
    calls: Annotated[list[str] | None, typer.Argument(help="Dead letters by their ids.")] = None,
    function: Annotated[str, typer.Option("--function", "-f", help="All dead letters of this function.")] = "",
    all_: Annotated[bool, typer.Option("--all", help="All dead letters of the namespace.")] = False,
    namespace: Namespace = "default",
    output: Output = Format.table,
) -> None:
    """Put dead letters back into the queue, with all their retries anew."""
    if bool(calls) + bool(function) + all_ != 1:
        raise Usage("name calls, or give --function NAME, or --all")
    wanted: dict[str, Any] = {"calls": calls} if calls else {"namespace": namespace, "function": function}
    found: list[str] = gateway().system("POST", "/system/calls/redrive", body=_json(wanted))["calls"]
    if output is not Format.table:
        emit(found, output)
        return
    for each in found:
        echo(each)
    note(f"{len(found)} calls are queued again" if found else "there were no such dead letters")


@app.command()
def logs(call: str) -> None:
    """Print what a call wrote, as far as its function's instances still exist."""
    record = fetch(call)
    if not asyncio.run(_print_logs(record)):
        note(f"no instance of {record['function']} that still exists has lines of call {call}")


async def _print_logs(record: dict[str, Any]) -> int:
    """The lines that begin with the call's id (`runtime-images/PROTOCOL.md`); how many there were."""
    from core.api import views
    from core.api.kinds import POD
    from core.errors import ApiError
    from faaslite.api.names import LABEL_FUNCTION

    mark = f"[call {record['id']}] ".encode()
    found = 0
    async with connect() as (client, transport):
        labels = f"{LABEL_FUNCTION}={record['function']}"
        pods, _ = await client.list(POD, record["namespace"], labels=labels, as_=views.Pod)
        for pod in pods:
            try:
                async for line in _lines(transport, POD.path(pod.namespace, pod.name, "log")):
                    if line.startswith(mark):
                        found += 1
                        echo(line[len(mark) :].decode(errors="replace"))
            except ApiError as error:
                note(f"{pod.name}: {error}")
    return found


async def _lines(transport: LightTransport, path: str) -> Any:
    rest = b""
    async with aclosing(transport.stream(path, {})) as chunks:
        async for chunk in chunks:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield line
    if rest:
        yield rest


def fetch(call: str) -> dict[str, Any]:
    """One record. Raises NotThere."""
    found: dict[str, Any] = gateway().system("GET", _path(call))
    return found


def ended(record: dict[str, Any]) -> bool:
    return record["status"] not in ("Queued", "Running")


def show(record: dict[str, Any], output: Format) -> None:
    """For people: what there is, a line each, the result last."""
    if output is not Format.table:
        emit(record, output)
        return
    phases = record.get("phases") or {}
    told = "  ".join(f"{name} {seconds(phases[key])}" for name, key in _PHASES if phases.get(key) is not None)
    plain = {
        "call": record["id"],
        "function": f"{record['function']}.{record['namespace']}",
        "trigger": f"{record['trigger']} {record['cron']}".strip(),
        "status": record["status"],
        "http status": record["httpStatus"],
        "attempts": record["attempts"],
        "scheduled": record["scheduledAt"],
        "accepted": record["acceptedAt"],
        "started": record["startedAt"],
        "finished": record["finishedAt"],
        "next attempt": record.get("nextAttemptAt"),
        "phases": told,
        "revision": record.get("revision"),
        "replay of": record.get("replayOf"),
        "callback": (record.get("callback") or {}).get("state"),
        "trace": record.get("traceId"),
        "error": record["error"],
    }
    for key, value in plain.items():
        if value not in (None, ""):
            echo(f"{key + ':':<14}{value}")
    result = record.get("result")
    if result:
        cut = ", cut off" if result["truncated"] else ""
        echo(f"{'result:':<14}{result['contentType'] or 'no content type'}{cut}")
        echo(result["body"] if result["encoding"] == "utf-8" else f"(base64) {result['body']}")


_PHASES = (("queued", "queued"), ("cold start", "coldStart"), ("ran", "run"))


def seconds(value: float | None) -> str:
    """`850us`, `12.3ms`, `4.21s`, `3m10s`."""
    if value is None:
        return "-"
    if value < 0.001:
        return f"{value * 1e6:.0f}us"
    if value < 1:
        return f"{value * 1e3:.3g}ms"
    if value < 120:
        return f"{value:.3g}s"
    return f"{int(value // 60)}m{int(value % 60)}s"


def _path(call: str) -> str:
    return f"/system/calls/{quote(call, safe='')}"


def _short(text: str) -> str:
    line = text.split("\n", 1)[0]
    return line if len(line) <= 60 else f"{line[:57]}..."


def _json(document: dict[str, Any]) -> bytes:
    import json

    return json.dumps(document).encode()
