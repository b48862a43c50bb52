"""`faas namespace`: one per team, with its bounds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.context import run
from cli.errors import CliError, Usage
from cli.options import Output
from cli.output import Format, age, echo, emit, note, table
from core.api.kinds import LIMIT_RANGE, NAMESPACE, NETWORK_POLICY, RESOURCE_QUOTA, ROLE_BINDING, Kind
from core.api.meta import Document

if TYPE_CHECKING:
    from core.client.rest import Client
    from faaslite.api.tenancy import Bounds

__all__ = ["app"]

app = typer.Typer(help="Namespaces, one per team.", no_args_is_help=True, rich_markup_mode=None)

Cpu = Annotated[str | None, typer.Option(help="CPU that the team's instances may ask for together, such as 4.")]
Memory = Annotated[str | None, typer.Option(help="Memory likewise, such as 8Gi.")]
Pods = Annotated[str | None, typer.Option(help="Instances at most.")]
Functions = Annotated[str | None, typer.Option(help="Functions at most.")]
Rps = Annotated[str | None, typer.Option(help="Calls a second that the gateway lets through to the team.")]
Concurrency = Annotated[str | None, typer.Option(help="Calls under way that it lets through.")]
Level = Annotated[
    str | None,
    typer.Option("--pod-security", help="What Pods may ask of their node: restricted, baseline, privileged."),
]
Developers = Annotated[
    list[str] | None, typer.Option("--developers", help="A group whose members are developers; may be repeated.")
]
Viewers = Annotated[
    list[str] | None, typer.Option("--viewers", help="A group whose members are viewers; may be repeated.")
]


def _command(purpose: str, *, must_be_there: bool) -> Callable[..., None]:
    """`create` and `set` are told the same, of a namespace that may be there or must be."""

    def command(
        name: str,
        cpu: Cpu = None,
        memory: Memory = None,
        pods: Pods = None,
        functions: Functions = None,
        rps: Rps = None,
        concurrency: Concurrency = None,
        pod_security: Level = None,
        developers: Developers = None,
        viewers: Viewers = None,
    ) -> None:
        said = {
            "cpu": cpu, "memory": memory, "pods": pods, "functions": functions, "rps": rps, "concurrency": concurrency,
            "pod_security": pod_security,
        }  # fmt: skip
        if must_be_there and not any(value is not None for value in (*said.values(), developers, viewers)):
            raise Usage("nothing is said that could change; give a bound, such as --pods 20")
        _bring_about(name, said, developers or [], viewers or [], must_be_there=must_be_there)

    command.__doc__ = purpose
    return command


app.command("create")(
    _command(
        "Make a team's namespace: bounds, roles, a `ci` account, a network policy. Run again, it goes on where it stopped, and changes what is "
        "said; `none` lifts a bound.",
        must_be_there=False,
    )
)
app.command("set")(
    _command(
        "Change bounds of a namespace that is there; what isn't said stays, `none` lifts a bound.", must_be_there=True
    )
)


def _bring_about(
    name: str, said: dict[str, str | None], developers: list[str], viewers: list[str], *, must_be_there: bool
) -> None:
    from core.errors import ApiError, NotFound
    from faaslite.api.tenancy import Bounds, read_bounds, team_documents

    _bounds(Bounds(), said)  # what is wrong with them is said before anything is asked
    done: list[str] = []

    async def make(client: Client) -> tuple[bool, Bounds]:
        there, bounds = True, Bounds()
        try:
            quotas = (await client.list(RESOURCE_QUOTA, name))[0]
            stored = await client.get(NAMESPACE, name)
        except NotFound:
            if must_be_there:
                raise
            there = False
        else:
            fresh = not quotas and "app.kubernetes.io/managed-by" not in (stored["metadata"].get("labels") or {})
            # A namespace that something else made, or that was stopped half-way, has no bounds of ours yet.
            bounds = Bounds() if fresh and not must_be_there else read_bounds(stored, quotas)
        bounds = _bounds(bounds, said)
        for kind, document in team_documents(name, bounds, developers=developers, viewers=viewers):
            what = f"{kind.kind} {document['metadata']['name']}"
            try:
                step = await _apply(client, kind, document, "" if kind is NAMESPACE else name)
            except ApiError as error:
                made = f"; done before: {', '.join(done)}; run the command again to go on" if done else ""
                raise CliError(f"namespace {name}: {what}: {error.message}{made}") from error
            if step:
                done.append(f"{what} {step}")
        return there, bounds

    there, bounds = run(make)
    for each in done:
        note(each)
    limits = bounds.described()
    if there:
        echo(
            f"namespace {name} {'changed' if done else 'is as it should be'}{f': {limits}' if limits else ', without bounds'}"
        )
    else:
        echo(
            f"namespace {name} created{f' with {limits}' if limits else ''}; deploy into it with `faas deploy PATH -n {name}`"
        )
    if any(each.startswith(NETWORK_POLICY.kind) for each in done):
        note(
            "its NetworkPolicy lets in the gateway and the team alone: it is stored now, and holds where the network enforces policies"
        )


def _bounds(bounds: Bounds, said: dict[str, str | None]) -> Bounds:
    try:
        return bounds.changed(**said)
    except ValueError as error:
        raise Usage(str(error)) from error


async def _apply(client: Client, kind: Kind, document: Document, namespace: str) -> str:
    """`created`, `changed`, or "" where it was so already."""
    from core.errors import AlreadyExists, NotFound
    from faaslite.api.tenancy import changed

    name = document["metadata"]["name"]
    try:
        stored = await client.get(kind, name, namespace)
    except NotFound:
        try:
            await client.create(kind, document, namespace)
        except AlreadyExists:  # made meanwhile, as the `default` account of a new namespace may be
            stored = await client.get(kind, name, namespace)
        else:
            return "created"
    patch = changed(stored, document)
    if patch is None:
        return ""
    await client.patch(kind, name, namespace, patch)
    return "changed"


@app.command()
def describe(name: str, output: Output = Format.table) -> None:
    """Show a namespace: its bounds, what of them is used, and who has a role in it."""

    async def gather(client: Client) -> dict[str, Any]:
        namespace = await client.get(NAMESPACE, name)
        kinds = {"quotas": RESOURCE_QUOTA, "limits": LIMIT_RANGE, "policies": NETWORK_POLICY, "bindings": ROLE_BINDING}
        return {"namespace": namespace, **{key: (await client.list(kind, name))[0] for key, kind in kinds.items()}}

    found = run(gather)
    if output is not Format.table:
        emit(found, output)
        return
    from faaslite.api.tenancy import read_bounds

    bounds = read_bounds(found["namespace"], found["quotas"])
    echo(f"Name:           {name}")
    echo(f"Status:         {found['namespace'].get('status', {}).get('phase', '')}")
    echo(f"Pod security:   {bounds.pod_security}")
    echo(f"Calls:          {bounds.rps or 'unlimited'} a second, {bounds.concurrency or 'unlimited'} at one time")
    policies = ", ".join(each["metadata"]["name"] for each in found["policies"])
    echo(f"Network policy: {policies or 'none'}{' (holds where the network enforces policies)' if policies else ''}")
    echo()
    rows = [
        (bound, (each.get("status") or {}).get("used", {}).get(bound, "?"), limit)
        for each in found["quotas"]
        for bound, limit in sorted(((each.get("spec") or {}).get("hard") or {}).items())
    ]
    table(("BOUND", "USED", "OF"), rows, f"{name} has no quota; `faas namespace set {name} --pods 20` gives it one")
    echo()
    roles = [
        (each["roleRef"]["name"].removeprefix("faaslite-"), subject["kind"], subject["name"])
        for each in found["bindings"]
        for subject in each.get("subjects") or ()
    ]
    table(
        ("ROLE", "KIND", "WHO"), roles, f"nobody has a role in {name}; `faas token create --role developer -n {name}`"
    )


@app.command("list")
def list_(output: Output = Format.table) -> None:
    """List namespaces."""
    items: list[Document] = run(lambda client: client.list(NAMESPACE))[0]
    if output is not Format.table:
        emit(items, output)
        return
    now = time.time()
    rows = [
        (
            each["metadata"]["name"],
            each.get("status", {}).get("phase", ""),
            age(each["metadata"].get("creationTimestamp"), now),
        )
        for each in items
    ]
    table(("NAME", "STATUS", "AGE"), rows)


@app.command()
def delete(name: str) -> None:
    """Delete a namespace with everything in it."""
    run(lambda client: client.delete(NAMESPACE, name))
    echo(f"namespace {name} is being deleted, with everything in it")
