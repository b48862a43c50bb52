"""What kinds the API serves, CustomResourceDefinitions included, as `Kind` values."""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from core.api.kinds import Kind
from core.client.rest import Client
from core.errors import ApiError, NotFound

__all__ = ["parse_resources", "served_kinds"]

log = logging.getLogger(__name__)


def parse_resources(group_version: str, resources: list[dict[str, Any]]) -> list[Kind]:
    """The kinds of an `APIResourceList` that can be listed, watched and deleted; subresources are left out."""
    group, _, version = group_version.rpartition("/")
    return [
        Kind(group, version, each["kind"], each["name"], bool(each.get("namespaced")), verbs=tuple(each["verbs"]))
        for each in resources
        if "/" not in each["name"] and {"list", "watch", "delete"} <= set(each.get("verbs") or ())
    ]


async def served_kinds(client: Client) -> list[Kind]:
    """Each kind once, in its group's preferred version. Raises `ApiError` where the list of groups can't be had.

    A group that doesn't answer is left out with a warning, so that one broken extension doesn't stop the others.
    """
    versions = ["v1"]
    groups = msgspec.json.decode(await client.request("GET", "/apis"))
    for group in groups.get("groups") or ():
        preferred = (group.get("preferredVersion") or {}).get("groupVersion")
        versions += [each["groupVersion"] for each in group["versions"] if each["groupVersion"] != preferred]
        if preferred:
            versions.insert(1, preferred)
    found: dict[tuple[str, str], Kind] = {}
    for version in versions:
        path = f"/apis/{version}" if "/" in version else f"/api/{version}"
        try:
            answer = msgspec.json.decode(await client.request("GET", path))
        except NotFound:
            continue
        except ApiError as error:
            log.warning("discovery of %s failed: %s", version, error.message)
            continue
        for kind in parse_resources(version, answer.get("resources") or []):
            found.setdefault((kind.group, kind.plural), kind)
    return list(found.values())
