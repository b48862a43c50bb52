"""How a machine becomes a node, and what its data dir knows from then on: certificates by the cluster's signers, and what else there is to know."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from core.api.kinds import NODE
from core.client.http import HttpTransport
from core.client.kubeconfig import client_context
from core.client.rest import Client
from core.errors import AlreadyExists, ApiError, NotFound
from core.node.joining import Credentials, JoinError, join, serving_certificate
from faaslite.launch.errors import LaunchError
from faaslite.launch.home import Home
from faaslite.launch.pki import write_private

__all__ = ["Files", "Joined", "enter", "load", "save"]


@dataclass(slots=True)
class Joined:
    """What a node's data dir knows. `server` is the API's URL; `address` where the API server reaches the agent, "" for the one that this machine
    reaches the API by; `slice` the part of 127/8 that its Pods have."""

    server: str
    name: str
    address: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    slice: int = 0


def load(home: Home) -> Joined | None:
    """None where the data dir is no node's. Raises LaunchError."""
    try:
        return Joined(**json.loads(home.joined.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, OSError) as error:
        raise LaunchError(f"{home.joined} can't be read: {error}; remove the data dir and join again") from error


def save(home: Home, joined: Joined) -> None:
    write_private(home.joined, json.dumps(asdict(joined), indent=2).encode() + b"\n")


class Files:
    """PEM files of a node's data dir."""

    def __init__(self, home: Home) -> None:
        self.authority = home.pki / "ca.crt"
        self.client = home.pki / "node.crt", home.pki / "node.key"
        self.serving = home.pki / "serving.crt", home.pki / "serving.key"

    def transport(self, joined: Joined) -> HttpTransport:
        """As the node itself. Raises LaunchError."""
        try:
            certificate, key = (each.read_bytes() for each in self.client)
            context = client_context(ca=self.authority.read_bytes(), cert=certificate, key=key)
        except (OSError, ValueError) as error:
            raise LaunchError(
                f"the certificates in {self.authority.parent} can't be used: {error}; join again with a new token"
            ) from error
        return HttpTransport(joined.server, ssl=context)

    def keep(self, client: Credentials, serving: Credentials) -> None:
        for (certificate, key), made in ((self.serving, serving), (self.client, client)):
            write_private(key, made.key)
            write_private(certificate, made.certificate)


async def enter(home: Home, joined: Joined, authority: bytes, token: str) -> None:
    """Get this data dir the certificates of the node that `joined` names, from the server whose CA is `authority` (PEM), with a bootstrap token.

    Raises JoinError; LaunchError where the data dir can't be used.
    """
    home.prepare()
    if home.settings.exists():
        raise LaunchError(f"{home.path} is the data dir of a cluster; choose another for the node with --data-dir")
    files = Files(home)
    newcomer = Client(HttpTransport(joined.server, token=token, ssl=client_context(ca=authority)))
    try:
        made = await join(newcomer, joined.name)
    finally:
        await newcomer.close()
    own = client_context(ca=authority, cert=made.certificate, key=made.key)
    node = Client(HttpTransport(joined.server, ssl=own))
    try:
        await _refuse_name_in_use(node, joined.name)
        await _rehearse(node, joined)
        serving = await serving_certificate(node, joined.name)
    finally:
        await node.close()
    write_private(files.authority, authority)
    files.keep(made, serving)
    save(home, joined)


async def _refuse_name_in_use(client: Client, name: str) -> None:
    try:
        found: dict[str, Any] = await client.get(NODE, name)
    except NotFound:
        return
    conditions = (found.get("status") or {}).get("conditions") or ()
    if any(each["type"] == "Ready" and each["status"] == "True" for each in conditions):
        raise JoinError(
            f"node {name}: the cluster has a node of that name, and it is well; choose another with --name (one that has just died "
            "is given up after 40 s)"
        )


async def _rehearse(client: Client, joined: Joined) -> None:
    """Register the Node without effect, so that what is wrong with its labels is said now, and not in the agent's log."""
    document = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": joined.name, "labels": joined.labels}}
    try:
        await client.transport.request("POST", NODE.path(), {"dryRun": "All"}, json.dumps(document).encode())
    except AlreadyExists:
        return
    except ApiError as error:
        raise JoinError(f"node {joined.name}: {error.message}") from error
