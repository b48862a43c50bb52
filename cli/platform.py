"""`faas up`, `down`, `status`, `kubeconfig`, `run`: the platform itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.context import home_folder, run
from cli.errors import CliError
from cli.options import DataDir, Output
from cli.output import Format, duration, echo, emit, note, table

if TYPE_CHECKING:
    from core.client.rest import Client

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    app.command()(up)
    app.command()(down)
    app.command()(status)
    app.command()(kubeconfig)
    app.command("run")(run_component)


def up(
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when it is ready, and leave it running.")
    ] = False,
    runtime: Annotated[str | None, typer.Option(help="auto, process or docker.", show_default="auto")] = None,
    nodes: Annotated[int | None, typer.Option(help="How many nodes.", show_default="1")] = None,
    workers: Annotated[int | None, typer.Option(help="How many gateway workers.", show_default="1")] = None,
    api_port: Annotated[
        int | None, typer.Option(help="0 takes a free one.", show_default="6443", min=0, max=65535)
    ] = None,
    gateway_port: Annotated[
        int | None, typer.Option(help="0 takes a free one.", show_default="8080", min=0, max=65535)
    ] = None,
    listen: Annotated[str | None, typer.Option(help="The address to listen on.", show_default="127.0.0.1")] = None,
    domain: Annotated[
        str | None, typer.Option(help="Functions are also at the hosts NAME.NAMESPACE.DOMAIN.", show_default="none")
    ] = None,
    gateway_tls: Annotated[
        bool | None,
        typer.Option("--gateway-tls/--no-gateway-tls", help="HTTPS at the gateway.", show_default="no"),
    ] = None,
    gateway_cert: Annotated[
        Path | None,
        typer.Option(help="Its certificate chain (PEM).", show_default="made with the cluster's CA"),
    ] = None,
    gateway_key: Annotated[Path | None, typer.Option(help="The certificate's key (PEM).")] = None,
    redis: Annotated[
        str | None, typer.Option(help='The queue of calls in Redis: redis://HOST:PORT/DB; "" for the embedded one.')
    ] = None,
    warm: Annotated[
        int | None, typer.Option(help="Started containers that Docker nodes keep waiting.", show_default="4")
    ] = None,
    audit_policy: Annotated[
        Path | None,
        typer.Option(help='What the API writes into logs/audit.log (audit.k8s.io/v1); "" for the built-in policy.'),
    ] = None,
    oidc_issuer_url: Annotated[
        str | None,
        typer.Option(help='Take the ID tokens of this OpenID Connect issuer; "" for none.', show_default="none"),
    ] = None,
    oidc_client_id: Annotated[str | None, typer.Option(help="The audience that they must have.")] = None,
    oidc_username_claim: Annotated[str | None, typer.Option(help="The user's name.", show_default="sub")] = None,
    oidc_username_prefix: Annotated[
        str | None, typer.Option(help="What is put before it; - for nothing.", show_default="the issuer and #")
    ] = None,
    oidc_groups_claim: Annotated[str | None, typer.Option(help="The user's groups.", show_default="none")] = None,
    oidc_groups_prefix: Annotated[str | None, typer.Option(help="What is put before each.")] = None,
    oidc_required_claim: Annotated[
        list[str] | None, typer.Option(help="CLAIM=VALUE that tokens must have; may be repeated.")
    ] = None,
    oidc_ca_file: Annotated[
        Path | None,
        typer.Option(help="The authorities of the issuer's certificate (PEM).", show_default="the system's"),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Start the platform. What isn't said stays as it was the last time."""
    flags = {
        "runtime": runtime, "nodes": nodes, "workers": workers, "api_port": api_port, "gateway_port": gateway_port, "listen": listen, "redis": redis,
        "warm": warm, "domain": domain, "gateway_tls": gateway_tls or (True if gateway_cert else gateway_tls),
        "audit_policy": _file(audit_policy), "oidc_issuer_url": oidc_issuer_url, "oidc_client_id": oidc_client_id,
        "oidc_username_claim": oidc_username_claim, "oidc_username_prefix": oidc_username_prefix, "oidc_groups_claim": oidc_groups_claim,
        "oidc_groups_prefix": oidc_groups_prefix, "oidc_required_claim": oidc_required_claim or None, "oidc_ca_file": _file(oidc_ca_file),
        "gateway_cert": gateway_cert and str(gateway_cert.absolute()), "gateway_key": gateway_key and str(gateway_key.absolute()),
    }  # fmt: skip
    given = json.dumps({key: value for key, value in flags.items() if value is not None})
    command = [sys.executable, "-P", "-m", "faaslite.launch", str(home_folder(data_dir).absolute()), given]
    if not detach:
        os.execv(command[0], command)  # noqa: S606
    _detached(command)


def _file(path: Path | None) -> str | None:
    """As a setting: absolute, or "" for none; None where nothing is said."""
    if path is None:
        return None
    return "" if path == Path() else str(path.absolute())


def _detached(command: list[str]) -> None:
    """Start the supervisor in a session of its own, and show its progress until it is ready."""
    reader, writer = os.pipe()
    complaints = tempfile.TemporaryFile()  # noqa: SIM115 - the supervisor's as long as it lives
    supervisor = subprocess.Popen(
        [*command, str(writer)],
        pass_fds=(writer,),
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=complaints,
    )
    os.close(writer)
    with os.fdopen(reader) as progress:
        for line in progress:
            event = json.loads(line)
            if "error" in event:
                supervisor.wait()
                raise CliError(event["error"])
            if "text" in event:
                echo(event["text"])
            if event.get("ready"):
                return
    code = supervisor.wait()
    complaints.seek(0)
    said = complaints.read().decode(errors="replace").strip().splitlines()
    why = f": {said[-1]}" if said else "; see the logs in the data dir"
    raise CliError(f"the platform ended with exit code {code} before it was ready{why}")


def down(data_dir: DataDir = None) -> None:
    """Stop the platform and everything that runs on it; the data stays."""
    from faaslite.launch.control import stop
    from faaslite.launch.engine import clean, left
    from faaslite.launch.errors import NotRunning
    from faaslite.launch.home import Home

    home = Home(home_folder(data_dir))
    try:
        stop(home)
    except NotRunning:
        if left(home) is None:
            raise
        for each in home.run.glob("*.sock"):
            each.unlink(missing_ok=True)
        note("it wasn't running; taking away what it left on the Docker engine")
    count = clean(home)
    if count:
        note(f"removed {count} containers")
    echo(f"stopped; the data is kept in {home.path}")


def status(data_dir: DataDir = None, output: Output = Format.table) -> None:
    """Show what runs, and whether all of it is ready."""
    from faaslite.launch.control import ask
    from faaslite.launch.errors import LaunchError
    from faaslite.launch.home import Home
    from faaslite.launch.rotation import expiries

    home = Home(home_folder(data_dir))
    found = ask(home, "status")
    found["nodes"] = _nodes(home.kubeconfig)
    try:
        found["warnings"] = [each.warning() for each in expiries(home.pki) if each.near]
    except LaunchError as error:
        found["warnings"] = [str(error)]
    if output is not Format.table:
        emit(found, output)
        return
    echo(f"{'ready' if found['ready'] else 'not ready'} for {duration(found['uptime'])}, data in {home.path}")
    echo(f"API      {found['api']}")
    if found["gateway"]:
        echo(f"Gateway  {found['gateway']}")
    echo()
    rows = [
        (
            each["name"],
            each["state"],
            each["pid"] or "-",
            each["restarts"],
            duration(each["uptime"]),
            each.get("lastExit", ""),
        )
        for each in found["components"]
    ]
    table(("COMPONENT", "STATE", "PID", "RESTARTS", "UPTIME", "LAST EXIT"), rows)
    echo()
    listed = [
        (each["name"], each["status"], each["runtime"], ",".join(each["isolation"]) or "-") for each in found["nodes"]
    ]
    table(("NODE", "STATUS", "RUNTIME", "ISOLATION"), listed, "no nodes: the API doesn't answer yet")
    for each in found["warnings"]:
        note(f"warning: {each}")


def _nodes(config: Path) -> list[dict[str, Any]]:
    """The nodes as the API has them; none where it doesn't answer."""
    from core.api import views
    from core.api.kinds import NODE
    from core.errors import ApiError

    if not config.exists():
        return []  # a node's own data dir, which sees nothing of the cluster
    os.environ["FAASLITE_KUBECONFIG"] = str(config)

    async def listed(client: Client) -> list[views.Node]:
        return (await client.list(NODE, as_=views.Node))[0]

    try:
        nodes = run(listed)
    except ApiError:
        return []
    return [
        {
            "name": each.name,
            "status": "Ready"
            if any(c.type == "Ready" and c.status == "True" for c in each.status.conditions)
            else "NotReady",
            "runtime": each.status.node_info.get("containerRuntimeVersion", ""),
            "isolation": each.metadata.annotations.get("faaslite.dev/isolation", "").split(),
        }
        for each in nodes
    ]


def kubeconfig(
    path_only: Annotated[bool, typer.Option("--path", help="Print where it is, not what it says.")] = False,
    fingerprint: Annotated[
        bool, typer.Option("--fingerprint", help="Print the fingerprint of the cluster's CA, for `faas login`.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Print the kubeconfig; `export KUBECONFIG=$(faas kubeconfig --path)` sets kubectl up."""
    from faaslite.launch.errors import NotRunning

    path = home_folder(data_dir) / "kubeconfig"
    try:
        text = path.read_text()
        if fingerprint:
            echo(_fingerprint(text))
            return
        sys.stdout.write(f"{path}\n" if path_only else text)
    except FileNotFoundError as error:
        raise NotRunning(f"there is no cluster in {path.parent} yet; start one with `faas up`") from error


def _fingerprint(kubeconfig: str) -> str:
    import base64

    import yaml

    from cli.kubeconfigs import fingerprint

    (cluster,) = yaml.safe_load(kubeconfig)["clusters"]
    return fingerprint(base64.b64decode(cluster["cluster"]["certificate-authority-data"]))


def run_component(
    component: Annotated[str, typer.Argument(help="core, jobs, node-1, sandboxer-1, gateway-1 ...")],
    data_dir: DataDir = None,
) -> None:
    """Run one component alone in the foreground, on the data dir of a cluster."""
    command = [sys.executable, "-P", "-m", "faaslite.launch.alone", str(home_folder(data_dir).absolute()), component]
    note(f"running {component}; stop it with Ctrl-C")
    os.execv(command[0], command)  # noqa: S606
