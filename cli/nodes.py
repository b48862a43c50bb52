"""`faas node`: machines that join a cluster, and the tokens that they join with."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.context import home_folder, kubeconfig_file, run
from cli.errors import CliError, NotThere, Usage
from cli.options import DataDir, Output
from cli.output import Format, age, duration, echo, emit, note, table

if TYPE_CHECKING:
    from core.client.rest import Client
    from faaslite.launch.home import Home

__all__ = ["app", "token_secret"]

_SHORTEST, _LONGEST = 60.0, 86400.0
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"

app = typer.Typer(help="Nodes: machines that join the cluster.", no_args_is_help=True, rich_markup_mode=None)


@app.command("token")
def token_(
    ttl: Annotated[str, typer.Option(help="How long it is worth something, such as 15m; a day at most.")] = "15m",
    server: Annotated[
        str, typer.Option(help="The API's URL as the new node reaches it.", show_default="the kubeconfig's")
    ] = "",
    output: Output = Format.table,
) -> None:
    """Make a token that a machine joins with, and print the command that does. Who has it can become any node: hand it on in private."""
    from cli.kubeconfigs import authority_of, fingerprint, server_of
    from core.api.kinds import SECRET
    from core.client.kubeconfig import load
    from faaslite.api.durations import parse_duration

    try:
        seconds = parse_duration(ttl)
    except ValueError as error:
        raise Usage(f"--ttl {ttl!r}: {error}") from error
    if not _SHORTEST <= seconds <= _LONGEST:
        raise Usage(f"--ttl {ttl}: a token for a node lasts from {duration(_SHORTEST)} to {duration(_LONGEST)}")
    config = load(kubeconfig_file())
    authority, url = authority_of(config), server or server_of(config)
    if not authority:
        raise CliError(
            f"{kubeconfig_file()} has no CA in it, and the joining node needs its hash; use another kubeconfig"
        )
    name, secret, token = token_secret(_random(6), _random(16), time.time() + seconds)
    run(lambda client: client.create(SECRET, secret, "kube-system"))
    digest = fingerprint(authority.encode())
    command = f"faas node join {url} --token {token} --ca-hash {digest}"
    if output is not Format.table:
        emit({"token": token, "server": url, "caHash": digest, "expires": secret["stringData"]["expiration"]}, output)
        return
    note(
        f"good until {secret['stringData']['expiration']}; take it back with `kubectl delete secret -n kube-system {name}`"
    )
    echo(command)


def _random(length: int) -> str:
    import secrets

    return "".join(secrets.choice(_LETTERS) for _ in range(length))


def token_secret(identity: str, secret: str, end: float) -> tuple[str, dict[str, Any], str]:
    """The name of a bootstrap token's Secret, the Secret, and the token. `end` is in seconds since the epoch."""
    from core.clock import timestamp

    name = f"bootstrap-token-{identity}"
    data = {
        "token-id": identity, "token-secret": secret, "usage-bootstrap-authentication": "true", "expiration": timestamp(end),
        "description": "made by `faas node token`",
    }  # fmt: skip
    document = {"metadata": {"name": name}, "type": "bootstrap.kubernetes.io/token", "stringData": data}
    return name, document, f"{identity}.{secret}"


@app.command()
def join(
    server: Annotated[
        str,
        typer.Argument(
            help="The API's URL, such as https://faas.example.com:6443; none goes on as the node of before."
        ),
    ] = "",
    token: Annotated[
        str, typer.Option(envvar="FAASLITE_JOIN_TOKEN", help="As `faas node token` prints it.", show_default=False)
    ] = "",
    ca_hash: Annotated[
        str,
        typer.Option(
            "--ca-hash",
            "--discovery-token-ca-cert-hash",
            help="sha256:HEX of the key of the cluster's CA.",
            show_default=False,
        ),
    ] = "",
    ca_file: Annotated[
        Path | None, typer.Option(help="The cluster's CA certificate (PEM), instead of its hash.")
    ] = None,
    name: Annotated[str, typer.Option(help="What the node is called.", show_default="the machine's name")] = "",
    label: Annotated[list[str] | None, typer.Option(help="KEY=VALUE on the Node; may be repeated.")] = None,
    address: Annotated[
        str, typer.Option(help="Where the API reaches this machine.", show_default="as it reaches the API")
    ] = "",
    data_dir: DataDir = None,
) -> None:
    """Run a node of a cluster here, in the foreground. Its Pods are processes of this machine; Ctrl-C ends them and leaves the cluster."""
    from faaslite.launch.home import Home

    home = Home(home_folder(data_dir))
    if server:
        _enter(home, server, token, ca_hash, ca_file, name, label or [], address)
    elif any((token, ca_hash, ca_file, name, label, address)):
        raise Usage("say which cluster to join: faas node join URL --token TOKEN --ca-hash sha256:HEX")
    command = [sys.executable, "-P", "-m", "faaslite.launch.joined", str(home.path)]
    os.execv(command[0], command)  # noqa: S606


def _enter(
    home: Home,
    server: str,
    token: str,
    ca_hash: str,
    ca_file: Path | None,
    name: str,
    labels: list[str],
    address: str,
) -> None:
    """Make the data dir that of a node, unless it is this very node's already."""
    import asyncio

    from cli.login import digest_of, fetched_authority, read_authority, server_url
    from faaslite.launch.membership import Joined, enter, load

    url = server_url(server)
    found = Joined(url, _node_name(name), address, _labels(labels))
    kept = load(home)
    if kept is not None and not token:
        if (kept.server, kept.name) != (url, found.name):
            raise CliError(
                f"{home.path} is the data dir of node {kept.name} of {kept.server}; choose another with --data-dir, or give a --token to join anew"
            )
        return
    if not token:
        raise Usage("--token is needed: `faas node token` makes one, on the cluster's machine")
    if (ca_file is None) == (not ca_hash):
        raise Usage("--ca-hash or --ca-file is needed, one of them: it says that the server is the right one")

    async def discover_and_enter() -> None:
        if ca_file is not None:
            authority = read_authority(ca_file)
        else:
            authority = await fetched_authority(url, digest_of(ca_hash, "--ca-hash"))
        await enter(home, found, authority, token)

    asyncio.run(discover_and_enter())


def _node_name(given: str) -> str:
    import re

    name = given or socket.gethostname().lower()
    if len(name) > 63 or not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", name):
        raise Usage(
            f"{name!r} is no name for a node: at most 63 lower-case letters, digits, - and .; choose one with --name"
        )
    return name


def _labels(given: list[str]) -> dict[str, str]:
    found = {}
    for each in given:
        key, equals, value = each.partition("=")
        if not equals or not key:
            raise Usage(f"--label {each!r}: write it as KEY=VALUE")
        found[key] = value
    return found


@app.command("list")
def list_(output: Output = Format.table) -> None:
    """List the cluster's nodes."""
    from core.api.kinds import NODE

    items: list[dict[str, Any]] = run(lambda client: client.list(NODE))[0]
    if output is not Format.table:
        emit(items, output)
        return
    now, rows = time.time(), []
    for each in items:
        status = each.get("status") or {}
        conditions = {found["type"]: found for found in status.get("conditions") or ()}
        ready = conditions.get("Ready", {})
        where = {found["type"]: found["address"] for found in status.get("addresses") or ()}
        rows.append(
            (
                each["metadata"]["name"],
                "Ready" if ready.get("status") == "True" else ready.get("message") or "NotReady",
                "no" if (each.get("spec") or {}).get("unschedulable") else "yes",
                where.get("InternalIP", "-"),
                (status.get("nodeInfo") or {}).get("containerRuntimeVersion") or "-",
                age(each["metadata"].get("creationTimestamp"), now),
            )
        )
    table(("NODE", "STATUS", "SCHEDULABLE", "ADDRESS", "RUNTIME", "AGE"), rows, "no nodes")


@app.command()
def remove(name: Annotated[str, typer.Argument(help="The node.")]) -> None:
    """Forget a node that has left, with what was bound to it."""
    from core.api.kinds import NODE
    from core.errors import NotFound

    async def forget(client: Client) -> None:
        try:
            found = await client.get(NODE, name)
        except NotFound as error:
            raise NotThere(f"there is no node {name}; `faas node list` shows them") from error
        conditions = (found.get("status") or {}).get("conditions") or ()
        if any(each["type"] == "Ready" and each["status"] == "True" for each in conditions):
            raise CliError(f"node {name} is well, and would be back at once: stop it first, where it runs")
        await client.delete(NODE, name, "", uid=found["metadata"]["uid"])

    run(forget)
    echo(f"node {name} is forgotten")
