"""CloudEvents 1.0 over HTTP, both ways, in binary and structured mode (cloudevents.io, HTTP protocol binding)."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any
from urllib.parse import quote, unquote

from . import sdk
from .kinds import MISSING, Faults
from .reply import Reply, to_reply
from .request import Event

__all__ = ["parse_event", "reply_event"]

STRUCTURED = "application/cloudevents+json"
_REQUIRED = ("id", "source", "type")
_KNOWN = ("id", "source", "type", "subject", "time", "datacontenttype", "dataschema")


def _kind(event: Event) -> str:
    return str(event.headers.get("content-type", "")).partition(";")[0].strip().lower()


def _is_json(kind: str) -> bool:
    plain = kind.partition(";")[0].strip().lower()
    return plain == "application/json" or plain.endswith("+json")


def parse_event(event: Event, faults: Faults) -> Any:
    """The CloudEvent that a request carries, or MISSING with faults added."""
    if _kind(event) == STRUCTURED:
        return _structured(event, faults)
    attributes = {
        name[3:]: unquote(value) for name, value in event.headers.items() if name.startswith("ce-") and len(name) > 3
    }
    kind = str(event.headers.get("content-type", ""))
    data: Any = event.body or None
    if data is not None and _is_json(kind):
        try:
            data = json.loads(event.body)
        except ValueError as error:
            return faults.add(("body",), f"is not JSON: {error}")
    elif data is not None and kind.lower().startswith("text/"):
        data = event.text
    if kind:
        attributes["datacontenttype"] = kind
    return _made(attributes, data, faults, "ce-")


def _structured(event: Event, faults: Faults) -> Any:
    try:
        document = json.loads(event.body)
    except ValueError as error:
        return faults.add(("body",), f"is not JSON: {error}")
    if not isinstance(document, dict):
        return faults.add(("body",), "must be an object")
    data = document.pop("data", None)
    encoded = document.pop("data_base64", None)
    if encoded is not None:
        try:
            data = base64.b64decode(encoded, validate=True)
        except (binascii.Error, TypeError, ValueError):
            return faults.add(("body", "data_base64"), "must be base64")
    attributes = {name: value if isinstance(value, str) else json.dumps(value) for name, value in document.items()}
    return _made(attributes, data, faults, "")


def _made(attributes: dict[str, str], data: Any, faults: Faults, prefix: str) -> Any:
    before = len(faults)
    version = attributes.pop("specversion", "")
    if version != "1.0":
        faults.add((f"{prefix}specversion",), "must be 1.0" if version else "is required: the request is no CloudEvent")
    for name in _REQUIRED:
        if not attributes.get(name):
            faults.add((f"{prefix}{name}",), "is required")
    if len(faults) > before:
        return MISSING
    extensions = {name: value for name, value in attributes.items() if name not in _KNOWN}
    known = {name: value for name, value in attributes.items() if name in _KNOWN[3:]}
    found = sdk.CloudEvent(attributes["type"], attributes["source"], data, id=attributes["id"], **known)
    found.extensions = extensions
    return found


def reply_event(value: sdk.CloudEvent, event: Event | None) -> Reply:
    """A CloudEvent as a reply: in the mode that the request came in, structured where it was no event."""
    attributes = value.attributes()
    if event is not None and "ce-specversion" in event.headers:
        kind = attributes.pop("datacontenttype", "")
        headers = {f"ce-{name}": quote(text, safe=" !#$&'()*+,/:;=?@[]~-._|^`") for name, text in attributes.items()}
        body = value.data
        if body is not None and (_is_json(kind) or not (kind or isinstance(body, (str, bytes)))):
            body, kind = sdk.dumps(body), kind or "application/json"
        if kind:
            headers["content-type"] = kind
        return to_reply((body, 200, headers))
    document: dict[str, Any] = dict(attributes)
    if isinstance(value.data, (bytes, bytearray)):
        document["data_base64"] = base64.b64encode(value.data).decode()
    elif value.data is not None:
        document["data"] = value.data
    return to_reply((sdk.dumps(document), 200, {"content-type": f"{STRUCTURED}; charset=utf-8"}))
