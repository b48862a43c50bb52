"""`python -m faaslite.launch.joined DATA_DIR`: a node of a cluster that runs elsewhere, started by `faas node join`.

The data dir knows which node it is (`membership`). Here it runs, the agent and beside it the sandboxer, under a supervisor of their own, until it
is told to stop; then it leaves.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from cryptography import x509

from core.api.kinds import NODE
from core.client.rest import Client
from core.errors import ApiError, FaasliteError, ServiceUnavailable
from core.node.agent import Agent
from core.node.joining import JoinError
from core.node.leaving import Leaving
from core.node.runtime.process import ProcessRuntime
from core.node.runtime.sandboxer.node import Settings as SandboxerSettings
from core.node.server import Serving
from core.node.volumes.archive import ArchiveVolumes
from faaslite.api.names import LABEL_FUNCTION, NO_ROUTE_TAINT, PACKAGE_DRIVER, PORT, PROCESS_TAINT
from faaslite.launch import slices
from faaslite.launch.bootstrap import Closing
from faaslite.launch.child import Component, run_components
from faaslite.launch.errors import LaunchError
from faaslite.launch.home import Home
from faaslite.launch.membership import Files, Joined, load, save
from faaslite.launch.node import capacity, sandboxer_spec
from faaslite.launch.packages import RemotePackages
from faaslite.launch.process import ProcessSpec
from faaslite.launch.renewal import Renewal
from faaslite.launch.supervisor import Supervisor

__all__ = ["Place", "main", "place_of", "taints"]

_PATIENCE = 10.0
_GRACE = 60.0


class Place(NamedTuple):
    """Where a node is, seen from the cluster: its address, and whether it is on the cluster's own machine."""

    address: str
    beside: bool


async def _refuse_old_taints(client: Client, name: str) -> None:
    """A node doesn't change its own taints: one that was registered on the cluster's machine would draw functions here. Raises JoinError."""
    try:
        found: dict[str, Any] = await client.get(NODE, name)
    except ApiError:
        return  # it isn't registered, or it will be seen when it is
    if not any(each["key"] == NO_ROUTE_TAINT for each in (found.get("spec") or {}).get("taints") or ()):
        raise JoinError(
            f"node {name} was registered on the cluster's own machine, and this is another: `faas node remove {name}` first, there"
        )


def place_of(server: str, address: str = "") -> Place:
    """How this machine and the API's see each other. Raises ServiceUnavailable where the server isn't reached."""
    parts = urlsplit(server)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 443), timeout=_PATIENCE) as connection:
            own, theirs = connection.getsockname()[0], connection.getpeername()[0]
    except OSError as error:
        raise ServiceUnavailable(f"nothing answers at {server}: {error.strerror or error}") from error
    return Place(address or own, own == theirs)


def taints(place: Place) -> list[dict[str, str]]:
    """Of the Node: function Pods tolerate the first, and nothing of ours the second."""
    found = [{"key": PROCESS_TAINT, "effect": "NoSchedule"}]
    return found if place.beside else [*found, {"key": NO_ROUTE_TAINT, "effect": "NoSchedule"}]


# The node's processes


def _processes(home: Home, joined: Joined, place: Place, close: Callable[[], None]) -> list[ProcessSpec]:
    def main(report: int) -> None:
        close()
        run_components(lambda: _build(home, joined, place), report)

    return [
        sandboxer_spec("sandboxer", home, joined.name, SandboxerSettings(), close),
        ProcessSpec("node", main, after=["sandboxer"], grace=_GRACE),
    ]


async def _build(home: Home, joined: Joined, place: Place) -> Sequence[Component]:
    files = Files(home)
    transport = files.transport(joined)
    client = Client(transport)
    if not place.beside:
        await _refuse_old_taints(client, joined.name)
    packages = RemotePackages(transport)
    folder = home.node(joined.name)
    agent = Agent(
        client,
        joined.name,
        ProcessRuntime(home.sandboxer_socket(joined.name)),
        data_dir=folder,
        log_root=home.pod_logs,
        address=place.address,
        pod_cidr=slices.cidr(joined.slice),
        capacity=capacity("process"),
        taints=taints(place),
        labels=joined.labels,
        csi={PACKAGE_DRIVER: ArchiveVolumes(PACKAGE_DRIVER, packages.fetch, packages.check, folder / "packages")},
        serving=Serving(place.address, 0, *files.serving, files.authority),
        templates=LABEL_FUNCTION,
    )
    ends = x509.load_pem_x509_certificate(files.client[0].read_bytes())
    renewal = Renewal(client, joined.name, ends.not_valid_before_utc, ends.not_valid_after_utc, files.keep)
    return [Closing(client), renewal, agent, Leaving(client, agent)]


def main(arguments: Sequence[str]) -> int:
    home = Home(Path(arguments[0]))
    try:
        error = _supervise(home)
    except FaasliteError as failed:
        error = str(failed)
    if error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


def _supervise(home: Home) -> str:
    home.prepare()
    joined = load(home)
    if joined is None:
        raise LaunchError(f"{home.path} is no node's data dir: join a cluster with `faas node join URL`")
    _check_time(Files(home).client[0])
    place = place_of(joined.server, joined.address)
    ((joined.slice, claim),) = slices.claim(1, [joined.slice] if joined.slice else [], PORT)
    save(home, joined)
    home.clear_volumes()  # what a node left that had no time to end
    about = {"api": joined.server, "gateway": "", "runtime": "process", "dataDir": str(home.path), "node": joined.name}
    with claim:
        return Supervisor(
            home,
            _processes(home, joined, place, claim.close),
            about=about,
            progress=lambda event: _report(event, joined, place),
            at_end=home.clear_volumes,
        ).run()


def _check_time(certificate: Path) -> None:
    with suppress(OSError, ValueError):  # which is said where it is used
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
        if found.not_valid_after_utc <= datetime.now(UTC):
            raise LaunchError(
                f"the node's certificate expired on {found.not_valid_after_utc:%Y-%m-%d}: join again with a new token"
            )


def _report(event: dict[str, Any], joined: Joined, place: Place) -> None:
    if event.get("ready"):
        print(f"node {joined.name} has joined {joined.server}; Ctrl-C makes it leave", flush=True)
        if not place.beside:
            print(
                f"the API is on another machine: Pods here can't be reached from there, so function Pods stay away (taint {NO_ROUTE_TAINT})",
                flush=True,
            )
    elif event["state"] == "died":
        print(f"{event['process']} ended ({event['exit']}), starting it again in {event['retry']:.1f} s", flush=True)


if __name__ == "__main__":
    os.environ.pop("FAASLITE_JOIN_TOKEN", None)
    sys.exit(main(sys.argv[1:]))
