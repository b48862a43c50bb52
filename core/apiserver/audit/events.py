"""One line of the audit log: an `audit.k8s.io/v1 Event` as JSON. Made off the event loop's hot path, in the log's own thread."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from core.apiserver import body
from core.apiserver.audit.policy import Level
from core.apiserver.authn.users import User
from core.apiserver.dispatch import RequestInfo
from core.clock import timestamp
from core.errors import ApiError

__all__ = ["Record", "render"]

_encode = msgspec.json.encode
_decode = msgspec.json.decode
Document = dict[str, Any]


class Record(NamedTuple):
    """What is known of a request at one stage. Times are seconds since the epoch; `code` 0: there is no answer yet."""

    level: Level
    stage: str
    number: int
    received: float
    now: float
    user: User | None
    impersonated: User | None
    info: RequestInfo
    scope: Mapping[str, Any]
    user_agent: str
    code: int = 0
    decision: str = ""
    reason: str = ""
    request: bytes = b""
    content_type: str = ""
    response: bytes = b""
    no_managed_fields: bool = False
    notes: Mapping[str, str] = {}


_START = os.urandom(8).hex()
_FAMILY = f"{_START[:8]}-{_START[8:12]}-4{_START[13:]}-a".encode()
"""Of all ids that this process gives: with their number they have the form of a random UUID (RFC 9562)."""


def render(record: Record) -> bytes:
    """The line, with its newline. Put together from pieces that are encoded once: this is done for every write of the cluster."""
    scope, number, info = record.scope, record.number, record.info
    query, client = scope["query_string"], scope.get("client")
    parts = [
        b'{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"%b","auditID":"%b%03x-%012x","stage":"%b","requestURI":%b,"verb":"%b","user":%b'
        % (
            _LEVELS[record.level], _FAMILY, number >> 48 & 0xFFF, number & 0xFFFFFFFFFFFF, record.stage.encode(),
            _encode(f"{scope['path']}?{query.decode('latin-1')}" if query else scope["path"]), info.verb.encode(), _user(record.user),
        )
    ]  # fmt: skip
    if record.impersonated is not None:
        parts.append(b',"impersonatedUser":%b' % _user(record.impersonated))
    if client:
        parts.append(b',"sourceIPs":["%b"]' % client[0].encode())
    if record.user_agent:
        parts.append(b',"userAgent":%b' % _encode(record.user_agent))
    if info.resource:
        parts.append(
            b',"objectRef":{%b' % _place(info.resource, info.namespace, info.group, info.version, info.subresource)
        )
        parts.append(b',"name":%b}' % _encode(info.name) if info.name else b"}")
    if record.code >= 400:
        parts.append(b',"responseStatus":%b' % _encode(_status(record)))
    elif record.code:
        parts.append(b',"responseStatus":{"metadata":{},"code":%d}' % record.code)
    if record.level >= Level.REQUEST and record.request:
        said = _object(record.request, record.content_type, record.no_managed_fields)
        parts.append(b',"requestObject":%b' % _encode(said))
    if record.level is Level.REQUEST_RESPONSE and record.response:
        parts.append(b',"responseObject":%b' % _encode(_object(record.response, body.JSON, record.no_managed_fields)))
    parts.append(
        b',"requestReceivedTimestamp":"%b","stageTimestamp":"%b"' % (_time(record.received), _time(record.now))
    )
    if record.notes:
        parts.append(b',"annotations":%b' % _encode({**_decided(record.decision, record.reason), **record.notes}))
    elif record.decision:
        parts.append(_annotations(record.decision, record.reason))
    parts.append(b"}\n")
    return b"".join(parts)


_LEVELS = {each: each.text.encode() for each in Level}
_users: dict[int, tuple[User, bytes]] = {}


def _user(user: User | None) -> bytes:
    """Encoded once for as long as requests come with the same object, as they do by the tables of tokens."""
    if user is None:
        return b"{}"
    found = _users.get(id(user))
    if found is None or found[0] is not user:
        if len(_users) >= 1024:
            _users.clear()
        found = _users[id(user)] = (user, _encode(user.document()))
    return found[1]


def _time(at: float) -> bytes:
    whole = int(at)
    return b"%b.%06dZ" % (timestamp(whole)[:-1].encode(), int((at - whole) * 1e6))


@lru_cache(maxsize=1024)
def _place(resource: str, namespace: str, group: str, version: str, subresource: str) -> bytes:
    found = {
        "resource": resource,
        "namespace": namespace,
        "apiGroup": group,
        "apiVersion": version,
        "subresource": subresource,
    }
    return _encode({key: value for key, value in found.items() if value})[1:-1]


@lru_cache(maxsize=1024)
def _annotations(decision: str, reason: str) -> bytes:
    return b',"annotations":%b' % _encode(_decided(decision, reason))


def _decided(decision: str, reason: str) -> dict[str, str]:
    return {"authorization.k8s.io/decision": decision, "authorization.k8s.io/reason": reason} if decision else {}


def _status(record: Record) -> Document:
    """Of a failure also what was said; an answer that is an object is told by its code alone."""
    found: Document = {"metadata": {}, "code": record.code}
    if record.code >= 400 and record.response:
        said = _object(record.response, body.JSON, False)
        if isinstance(said, dict):
            found |= {key: said[key] for key in ("status", "message", "reason", "details") if key in said}
    return found


def _object(data: bytes, content_type: str, no_managed_fields: bool) -> object:
    """The body as JSON: as it stands where it is that, else decoded; what can't be read is left out."""
    try:
        if body.media_type(content_type) in ("", body.JSON) or "json" in content_type:
            document = _decode(data)
        else:
            document = body.parse(data, content_type)[0]
    except (msgspec.MsgspecError, ApiError):
        return None
    if no_managed_fields and isinstance(document, dict) and isinstance(document.get("metadata"), dict):
        document["metadata"].pop("managedFields", None)
    return document
