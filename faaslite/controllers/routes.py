"""Decisions about how a Function is reached: its revisions by number and tag, its keys, and routes that two Functions want. Pure."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from core.api.meta import Document
from core.api.views import ReplicaSet, Secret
from faaslite.api.function import Function
from faaslite.controllers.resources import limits_of

__all__ = ["conflict", "hosts", "invocation_keys", "known_revisions", "route_keys"]


def known_revisions(revisions: Mapping[str, ReplicaSet]) -> list[Document]:
    """`status.revisions`: what can be called by its number, the oldest first."""
    found = []
    for name, each in revisions.items():
        concurrency, timeout = limits_of(each.spec.template)
        found.append({"revision": name, "concurrency": concurrency, "timeout": timeout})
    return found


def invocation_keys(function: Function, secrets: Iterable[Secret]) -> list[Document]:
    """`status.keys`: the hashes of the keys that may call it. `secrets` are those of the namespace with the label of keys; one that says
    nothing legible opens nothing."""
    if function.spec.http.visibility != "key":
        return []
    found = []
    for each in sorted(secrets, key=lambda each: each.name):
        digest = _text(each, "hash")
        scopes = _text(each, "functions").split(",")
        expires = _epoch(_text(each, "expires"))
        if len(digest) != 64 or expires is None or (function.name not in scopes and "*" not in scopes):
            continue
        row: Document = {"name": each.name, "hash": digest}
        if expires:
            row["expires"] = expires
        found.append(row)
    return found


def _text(secret: Secret, key: str) -> str:
    try:
        return b64decode(secret.data.get(key) or "", validate=True).decode()
    except ValueError:
        return ""


def _epoch(text: str) -> float | None:
    """0 for never, None where it can't be read."""
    if not text:
        return 0.0
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def route_keys(spec: Any) -> list[str]:
    """What two Functions must not both have: `host path` of each custom route of a stored spec, which may be invalid."""
    try:
        return [f"{str(each.get('host') or '').lower()} {each.get('path') or '/'}" for each in spec["http"]["routes"]]
    except (TypeError, KeyError, AttributeError):
        return []


def hosts(spec: Any) -> list[str]:
    """The hosts of a stored spec's routes, which may be invalid; "" is every host. Who has routes on the same host may be in one's way."""
    return sorted({each.partition(" ")[0] for each in route_keys(spec)})


def _between(mine: Iterable[str], theirs: Iterable[str]) -> str:
    """The route of mine that would stand between another namespace's route and its callers, "" for none: the gateway gives a named host to one
    namespace, and without a host what lies below a prefix."""
    for route in mine:
        host, _, path = route.partition(" ")
        for other in theirs:
            their_host, _, prefix = other.partition(" ")
            below = path == prefix or path.startswith(prefix if prefix.endswith("/") else f"{prefix}/")
            if host == their_host and (host or below):
                return route
    return ""


def conflict(key: str, created: str, spec: Any, others: Iterable[tuple[str, str, Any]]) -> str:
    """Why a route of this Function goes to another one: "" where none does. `others`: key, creation time, spec of those that share a host.
    The oldest has it."""
    mine = {route: _methods(spec, route) for route in route_keys(spec)}
    for other, time, theirs in sorted(others, key=lambda each: (each[1], each[0])):
        if other == key or (time, other) > (created, key):
            continue
        if key.partition("/")[0] != other.partition("/")[0] and (route := _between(mine, route_keys(theirs))):
            host, _, path = route.partition(" ")
            what = f"the host {host}" if host else f"{path} without a host"
            return f"spec.http.routes: {what} is of the namespace of {other}, which is older"
        for route in route_keys(theirs):
            if route in mine and _overlap(mine[route], _methods(theirs, route)):
                host, _, path = route.partition(" ")
                return f"spec.http.routes: {host or 'any host'}{path} is taken by {other}, which is older"
    return ""


def _methods(spec: Any, route: str) -> set[str]:
    """Empty for all."""
    found: set[str] = set()
    for key, each in zip(route_keys(spec), spec["http"]["routes"], strict=True):
        if key == route:
            if not each.get("methods"):
                return set()
            found |= set(each["methods"])
    return found


def _overlap(one: set[str], other: set[str]) -> bool:
    return not one or not other or bool(one & other)
