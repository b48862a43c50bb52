"""`faas secret rotate`, `versions`, `rollback`: functions go from one version of a secret to another, none of their calls fails."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.context import run
from cli.errors import CliError, NotThere, TimedOut, Usage
from cli.options import Namespace, Output
from cli.output import Format, age, echo, emit, note, table
from core.api.kinds import POD, REPLICA_SET, SECRET
from core.api.meta import Document

if TYPE_CHECKING:
    from core.client.rest import Client

__all__ = ["register"]

_LOOK = 0.25
"""Seconds between two looks at who has moved."""

Wait = Annotated[float, typer.Option(help="Seconds to wait for functions to have moved; 0 doesn't wait.", min=0)]


def register(app: typer.Typer) -> None:
    app.command()(rotate)
    app.command()(versions)
    app.command()(rollback)


@dataclass(slots=True)
class _Family:
    """A secret with its versions, and who holds them."""

    head: Document
    versions: dict[int, Document]
    pods: dict[int, list[str]]
    named: set[str]
    """Secrets that templates of revisions name."""

    @property
    def current(self) -> int:
        from faaslite.api.versions import current_of

        return current_of(self.head)


async def _family(client: Client, name: str, namespace: str) -> _Family:
    from core.errors import NotFound
    from faaslite.api.names import LABEL_FUNCTION, LABEL_VERSION_OF
    from faaslite.api.versions import held, number_of, secrets_in

    try:
        head = await client.get(SECRET, name, namespace)
    except NotFound:
        raise NotThere(f"there is no secret {name} in {namespace}; make it with `faas secret create {name}`") from None
    stored = (await client.list(SECRET, namespace, labels=f"{LABEL_VERSION_OF}={name}"))[0]
    numbered = {number_of(each): each for each in stored}
    pods = (await client.list(POD, namespace))[0]
    sets = (await client.list(REPLICA_SET, namespace, labels=LABEL_FUNCTION))[0]
    named = set().union(*(secrets_in(each["spec"]["template"].get("spec") or {}) for each in sets))
    return _Family(head, numbered, held(name, numbered, pods), named)


def rotate(
    name: str,
    from_literal: Annotated[
        list[str] | None, typer.Option("--from-literal", help="KEY=VALUE; may be repeated.")
    ] = None,
    from_file: Annotated[list[str] | None, typer.Option("--from-file", help="[KEY=]PATH; may be repeated.")] = None,
    wait: Wait = 120.0,
    namespace: Namespace = "default",
) -> None:
    """Make a new version of a secret, and have functions that use it move to it. Keys that aren't said stay as they are."""
    from cli.secrets import said

    data = said(from_literal, from_file)

    async def work(client: Client) -> None:
        family = await _family(client, name, namespace)
        if not family.current:
            # The first rotation: what it has been until now is version 1, so that there is a way back.
            await _add(client, family, name, namespace, 1, family.head.get("data") or {})
            family.versions[1] = {}
        number = max([family.current, *family.versions]) + 1
        merged = {**(family.head.get("data") or {}), **data}
        await _add(client, family, name, namespace, number, merged)
        await _point(client, family, number, merged)
        echo(f"secret {name} in {namespace} is at version {number}")
        await _moved(client, name, namespace, number, wait)

    run(work)


def rollback(
    name: str,
    to: Annotated[int | None, typer.Option(help="The version.", show_default="the one before the current")] = None,
    wait: Wait = 120.0,
    namespace: Namespace = "default",
) -> None:
    """Go back to an earlier version of a secret, and have functions that use it move to it."""

    async def work(client: Client) -> None:
        family = await _family(client, name, namespace)
        earlier = sorted(each for each in family.versions if each < family.current)
        number = to if to is not None else (earlier[-1] if earlier else 0)
        if number == family.current and number:
            raise Usage(f"secret {name} in {namespace} is at version {number} already")
        if number not in family.versions:
            there = ", ".join(map(str, sorted(family.versions))) or "none"
            what = f"version {to}" if to is not None else "earlier version"
            raise NotThere(f"secret {name} in {namespace} has no {what}; there are {there}")
        await _point(client, family, number, family.versions[number].get("data") or {})
        echo(f"secret {name} in {namespace} is back at version {number}")
        await _moved(client, name, namespace, number, wait)

    run(work)


def versions(name: str, namespace: Namespace = "default", output: Output = Format.table) -> None:
    """Show the versions of a secret and which instances hold which; never values."""

    async def gather(client: Client) -> _Family:
        return await _family(client, name, namespace)

    family = run(gather)
    found: list[dict[str, Any]] = [
        {
            "version": number,
            "state": "current" if number == family.current else "held" if family.pods[number] else "retired",
            "keys": sorted(each.get("data") or {}),
            "created": each["metadata"].get("creationTimestamp"),
            "instances": family.pods[number],
        }
        for number, each in sorted(family.versions.items(), reverse=True)
    ]
    if not family.versions or family.pods[0]:
        state = "current" if not family.current else "follows the current one"
        keys = sorted(family.head.get("data") or {})
        made = family.head["metadata"].get("creationTimestamp")
        found.append({"version": None, "state": state, "keys": keys, "created": made, "instances": family.pods[0]})
    if output is not Format.table:
        emit(found, output)
        return
    now = time.time()
    rows = [
        (
            each["version"] or "-",
            each["state"],
            ",".join(each["keys"]),
            age(each["created"], now),
            ",".join(each["instances"]) or "-",
        )
        for each in found
    ]
    table(("VERSION", "STATE", "KEYS", "AGE", "INSTANCES"), rows)


async def _add(client: Client, family: _Family, name: str, namespace: str, number: int, data: dict[str, str]) -> None:
    from core.errors import AlreadyExists
    from faaslite.api.versions import version, version_name

    head = family.head
    document = version(name, namespace, number, data, head["metadata"]["uid"], head.get("type") or "Opaque")
    try:
        await client.create(SECRET, document, namespace)
    except AlreadyExists:
        if number == 1 and 1 in family.versions:
            return  # an earlier first rotation got as far as this
        raise CliError(
            f"there is a secret {version_name(name, number)} in {namespace} already: somebody else rotates {name}, or it has that name by chance"
        ) from None


async def _point(client: Client, family: _Family, number: int, data: dict[str, str]) -> None:
    from core.errors import Conflict
    from faaslite.api.versions import head

    try:
        await client.update(SECRET, head(family.head, number, data))
    except Conflict:
        raise CliError("somebody else changed the secret meanwhile; look at its versions and try again") from None


async def _moved(client: Client, name: str, namespace: str, number: int, seconds: float) -> None:
    """Until no Pod holds another version; then what nobody needs any more is deleted."""
    from core.errors import NotFound
    from faaslite.api.versions import unneeded, version_name

    deadline = time.monotonic() + seconds
    while True:
        family = await _family(client, name, namespace)
        behind = {each: pods for each, pods in family.pods.items() if each != number and pods}
        if not behind:
            break
        if time.monotonic() >= deadline:
            left = "; ".join(
                f"{', '.join(pods)} {'follow the current one' if not each else f'hold version {each}'}"
                for each, pods in sorted(behind.items())
            )
            if not seconds:
                note(f"not waited for: {left}")
                return
            raise TimedOut(
                f"not every instance has moved to version {number} after {seconds:.0f} s: {left}; `faas list -n {namespace}` shows what is ready"
            )
        await asyncio.sleep(_LOOK)
    holders = len(family.pods.get(number, ()))
    note(f"every instance that uses it ({holders}) holds version {number}")
    for each in unneeded(family.current, family.pods, family.named, name):
        try:
            await client.delete(SECRET, version_name(name, each), namespace)
        except NotFound:
            continue
        note(f"version {each} is deleted: no instance and no revision needs it")
