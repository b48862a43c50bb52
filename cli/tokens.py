"""`faas token`: what is given to people and machines of a team to be somebody."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.context import kubeconfig_file, run
from cli.errors import CliError, Usage
from cli.options import Namespace, Output
from cli.output import Format, age, duration, echo, emit, note, table
from core.api.kinds import ROLE_BINDING, SERVICE_ACCOUNT
from core.api.meta import Document
from core.clock import parse_time

if TYPE_CHECKING:
    from core.client.rest import Client

__all__ = ["app"]

_SHORTEST, _LONGEST = 600.0, 365 * 86400.0
_UNTIL = "faaslite.dev/token-until"
"""On a ServiceAccount: when the token ends that was made last."""

app = typer.Typer(help="Tokens for people and machines of a team.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def create(
    role: Annotated[str, typer.Option(help="developer, viewer or ci.")],
    name: Annotated[str, typer.Option(help="Whose it is.", show_default="the role")] = "",
    ttl: Annotated[str, typer.Option(help="How long it is worth something, such as 30d or 12h.")] = "30d",
    kubeconfig: Annotated[bool, typer.Option(help="Print a kubeconfig with it, not the token alone.")] = False,
    namespace: Namespace = "default",
) -> None:
    """Make a token that may do what the role says in one namespace, and nothing elsewhere."""
    from faaslite.api.tenancy import ROLES, role_binding

    if role not in ROLES:
        raise Usage(f"--role {role!r} is not known; there are {', '.join(ROLES)}")
    seconds = _seconds(ttl)
    account = name or role

    async def make(client: Client) -> Document:
        await _ensure(client, account, namespace, role_binding(namespace, role, account))
        request = {"spec": {"expirationSeconds": int(seconds)}}
        made: Document = await client.create(SERVICE_ACCOUNT, request, namespace, name=account, subresource="token")
        until = {"metadata": {"annotations": {_UNTIL: made["status"]["expirationTimestamp"]}}}
        await client.patch(SERVICE_ACCOUNT, account, namespace, until)
        return made

    status = run(make)["status"]
    note(
        f"{account} is {role} in {namespace} until {status['expirationTimestamp']}; take it back with `faas token revoke {account} -n {namespace}`"
    )
    echo(_kubeconfig(status["token"], namespace).rstrip() if kubeconfig else status["token"])


async def _ensure(client: Client, account: str, namespace: str, binding: Document) -> None:
    """The account and its binding; an account that has another role keeps it, and that is an error."""
    from core.errors import AlreadyExists

    with contextlib.suppress(AlreadyExists):
        await client.create(SERVICE_ACCOUNT, {"metadata": {"name": account, "namespace": namespace}}, namespace)
    try:
        await client.create(ROLE_BINDING, binding, namespace)
    except AlreadyExists:
        found = await client.get(ROLE_BINDING, binding["metadata"]["name"], namespace)
        if found["roleRef"]["name"] != binding["roleRef"]["name"]:
            has = found["roleRef"]["name"].removeprefix("faaslite-")
            raise CliError(f"{account} is {has} in {namespace} already; choose another --name") from None


def _seconds(text: str) -> float:
    from faaslite.api.durations import parse_duration

    try:
        days = float(text[:-1]) * 86400 if text.endswith("d") else None
        seconds = float(days if days is not None else parse_duration(text))
    except ValueError as error:
        raise Usage(f"--ttl {text!r} is not a duration: write it like 30d, 12h or 45m") from error
    if not _SHORTEST <= seconds <= _LONGEST:
        raise Usage(f"--ttl {text} must be between 10m and 365d")
    return seconds


def _kubeconfig(token: str, namespace: str) -> str:
    """The kubeconfig of this cluster with another token, and with where the gateway is."""
    import yaml

    from cli.context import gateway
    from cli.kubeconfigs import gateway_of
    from core.client.kubeconfig import read_kubeconfig

    read_kubeconfig(kubeconfig_file())  # says what is wrong with it, if anything is
    document: dict[str, Any] = yaml.safe_load(kubeconfig_file().read_text())
    context = next(each for each in document["contexts"] if each["name"] == document["current-context"])
    where = gateway_of(document)
    if not where:
        with contextlib.suppress(CliError):
            where = gateway().url
    extensions = {"extensions": [{"name": "faaslite.dev", "extension": {"gateway": where}}]} if where else {}
    found = {**context["context"], "namespace": namespace, **extensions}
    document["contexts"] = [{"name": context["name"], "context": found}]
    document["users"] = [{"name": context["context"]["user"], "user": {"token": token}}]
    document["clusters"] = [each for each in document["clusters"] if each["name"] == context["context"]["cluster"]]
    text: str = yaml.safe_dump(document, sort_keys=False)
    return text


@app.command("list")
def list_(namespace: Namespace = "default", output: Output = Format.table) -> None:
    """List who has been given a role in a namespace, and until when."""

    async def gather(client: Client) -> tuple[list[Document], dict[str, str]]:
        accounts = (await client.list(SERVICE_ACCOUNT, namespace))[0]
        ends = {
            each["metadata"]["name"]: (each["metadata"].get("annotations") or {}).get(_UNTIL, "") for each in accounts
        }
        return (await client.list(ROLE_BINDING, namespace))[0], ends

    bindings, ends = run(gather)
    given = [
        {
            "name": subject["name"],
            "kind": subject["kind"],
            "role": each["roleRef"]["name"].removeprefix("faaslite-"),
            "until": (ends.get(subject["name"]) or None) if subject["kind"] == "ServiceAccount" else None,
            "created": each["metadata"].get("creationTimestamp"),
        }
        for each in bindings
        for subject in each.get("subjects") or ()
    ]
    if output is not Format.table:
        emit(given, output)
        return
    now = time.time()
    rows = [
        (each["name"], each["kind"], each["role"], _left(each["until"], now), age(each["created"], now))
        for each in given
    ]
    table(
        ("NAME", "KIND", "ROLE", "ENDS IN", "AGE"),
        rows,
        f"nobody has a role in {namespace}; `faas token create --role developer -n {namespace}`",
    )


def _left(until: str | None, now: float) -> str:
    if not until:
        return "-"
    left = parse_time(until) - now
    return duration(left) if left > 0 else "ended"


@app.command()
def revoke(name: str, namespace: Namespace = "default") -> None:
    """Take an account away with its role; its tokens are worth nothing from then on, anywhere."""
    from core.errors import NotFound

    async def remove(client: Client) -> None:
        await client.delete(SERVICE_ACCOUNT, name, namespace)
        try:
            await client.delete(ROLE_BINDING, f"faaslite-{name}", namespace)
        except NotFound:
            return

    run(remove)
    echo(f"{name} is gone from {namespace}, and its tokens with it")


app.command("delete", hidden=True, help="As `revoke`.")(revoke)
