"""From a request's method and path to what it asks for, as Kubernetes' `RequestInfo` says it.

Pure. Paths of resources: `/api/VERSION/...` and `/apis/GROUP/VERSION/...`, then `[namespaces/NAMESPACE/]PLURAL[/NAME[/SUBRESOURCE]]`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from core.api.selectors import parse_fields
from core.errors import BadRequest

__all__ = ["RequestInfo", "number", "parse", "selected", "truth"]

_NAMED = {"GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "POST": "create"}
_COLLECTION = {
    "GET": "list",
    "HEAD": "list",
    "POST": "create",
    "DELETE": "deletecollection",
    "PUT": "update",
    "PATCH": "patch",
}
_NUMBER = re.compile(r"[+-]?[0-9]+")
_BOUND = 2**63
_FALSE = ("false", "0")


class RequestInfo(NamedTuple):
    """What a request asks for. `resource` is empty where the path names none (discovery, health ...); then `verb` is the method."""

    verb: str
    path: str
    group: str = ""
    version: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    rest: str = ""
    fields: str = ""
    """The field selector of a list, watch or deletecollection: some may read only what it leaves."""

    @property
    def full_resource(self) -> str:
        """`pods` or `pods/status`: what rules and messages name."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


def truth(text: str) -> bool:
    """A boolean of a query that names it: everything but `false` and `0`, also nothing, is true."""
    return text.lower() not in _FALSE


def number(query: Mapping[str, str], name: str) -> int | None:
    """A whole number of a query; None where it is absent. Raises `BadRequest`, in the words of Go's strconv."""
    text = query.get(name, "")
    if not text:
        return None
    why = "invalid syntax"
    if _NUMBER.fullmatch(text):
        if len(text) < 21 and -_BOUND <= int(text) < _BOUND:
            return int(text)
        why = "value out of range"
    raise BadRequest(f'strconv.ParseInt: parsing "{text[:64]}": {why}')


def parse(method: str, path: str, query: Mapping[str, str]) -> RequestInfo:
    """Never fails: what isn't the path of a resource is a request for a path."""
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) > 2:
        group, version, parts = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, version, parts = parts[1], parts[2], parts[3:]
    else:
        return RequestInfo(method.lower(), path)
    # The oldest way to watch, `/api/v1/watch/pods`: deprecated, and still spoken.
    watched = parts[0] == "watch" and len(parts) > 1 and method == "GET"
    if watched:
        parts = parts[1:]
    namespace = ""
    # A Namespace's own subresources look like resources inside of it.
    if parts[0] == "namespaces" and len(parts) > 2 and not (parts[2] in ("status", "finalize") and len(parts) == 3):
        namespace, parts = parts[1], parts[2:]
    elif parts[0] == "namespaces" and len(parts) > 1:
        namespace = parts[1]
    name = parts[1] if len(parts) > 1 else ""
    subresource = parts[2] if len(parts) > 2 else ""
    verb = "watch" if watched else (_NAMED if name else _COLLECTION).get(method, method.lower())
    if verb == "list" and "watch" in query and truth(query["watch"]):
        verb = "watch"
    fields = "" if name else query.get("fieldSelector", "")
    if fields:
        # As in Kubernetes: who may read one object by name may also list and watch it alone.
        name = selected(fields, "metadata.name")
    return RequestInfo(verb, path, group, version, parts[0], namespace, name, subresource, "/".join(parts[3:]), fields)


def selected(fields: str, field: str) -> str:
    """The one value that a field selector leaves for a field; "" where it leaves several, or can't be understood."""
    try:
        found = [each.value for each in parse_fields(fields).terms if each.field == field and each.equal]
    except ValueError:
        return ""
    return found[0] if len(found) == 1 else ""
