"""`faas whoami`: who somebody is to the cluster, and what that gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from cli.context import connect
from cli.options import Output
from cli.output import Format, echo, emit
from core.api.kinds import CLUSTER_ROLE_BINDING, NAMESPACE, ROLE_BINDING, SELF_SUBJECT_REVIEW, Kind
from core.api.meta import Document

if TYPE_CHECKING:
    from core.client.rest import Client

__all__ = ["concerns", "register"]


def register(root: typer.Typer) -> None:
    root.command()(whoami)


def whoami(output: Output = Format.table) -> None:
    """Show who the kubeconfig's credentials are to the cluster, and which roles they have where."""
    import asyncio

    async def main() -> dict[str, Any]:
        async with connect() as (client, transport):
            return await _gathered(client, transport.namespace)

    found = asyncio.run(main())
    if output is not Format.table:
        emit(found, output)
        return
    echo(f"User:        {found['username']}")
    echo(f"Groups:      {', '.join(found.get('groups') or ()) or 'none'}")
    roles = [f"{each['role']} in {each['namespace'] or 'every namespace'}" for each in found["roles"]]
    echo(f"Roles:       {'; '.join(roles) or 'none that can be seen'}")
    echo(f"Namespaces:  {', '.join(found['namespaces']) or 'none'}")


async def _gathered(client: Client, own: str) -> dict[str, Any]:
    """Who one is, and the roles in what one may see: every namespace, or that of the context (`own`) and of the account."""
    document = {"apiVersion": SELF_SUBJECT_REVIEW.api_version, "kind": SELF_SUBJECT_REVIEW.kind}
    user: dict[str, Any] = (await client.create(SELF_SUBJECT_REVIEW, document))["status"]["userInfo"]
    everywhere = await _seen(client, CLUSTER_ROLE_BINDING)
    namespaces = [each["metadata"]["name"] for each in await _seen(client, NAMESPACE)]
    if not namespaces:
        account = user["username"].split(":")
        home = {account[2]} if user["username"].startswith("system:serviceaccount:") and len(account) == 4 else set()
        namespaces = sorted({own, *home})
    roles = [{"role": each["roleRef"]["name"], "namespace": ""} for each in everywhere if concerns(each, user)]
    having = set()
    for namespace in namespaces:
        for each in await _seen(client, ROLE_BINDING, namespace):
            if concerns(each, user, namespace):
                roles.append({"role": each["roleRef"]["name"].removeprefix("faaslite-"), "namespace": namespace})
                having.add(namespace)
    master = "system:masters" in (user.get("groups") or ())
    reached = (
        namespaces
        if master or any(not each["namespace"] for each in roles if each["role"] in _WIDE)
        else sorted(having)
    )
    return {**user, "roles": [each for each in roles if each["role"] not in _EVERYBODYS], "namespaces": reached}


_WIDE = ("cluster-admin", "admin", "edit", "view")
_EVERYBODYS = ("system:basic-user", "system:discovery", "system:public-info-viewer")
"""What everybody has who is known at all."""


async def _seen(client: Client, kind: Kind, namespace: str = "") -> list[Document]:
    """What one may list of a kind; nothing where one may not."""
    from core.errors import Forbidden

    try:
        found: list[Document] = (await client.list(kind, namespace))[0]
    except Forbidden:
        return []
    return found


def concerns(binding: Document, user: Document, namespace: str = "") -> bool:
    """Whether a binding names the user, one of its groups, or the ServiceAccount that it is."""
    for each in binding.get("subjects") or ():
        kind, name = each.get("kind"), each.get("name")
        if kind == "User" and name == user["username"]:
            return True
        if kind == "Group" and name in (user.get("groups") or ()):
            return True
        account = f"system:serviceaccount:{each.get('namespace') or namespace}:{name}"
        if kind == "ServiceAccount" and account == user["username"]:
            return True
    return False
