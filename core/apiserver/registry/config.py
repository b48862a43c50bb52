"""Rules of ConfigMaps and Secrets: keys, sizes, and content that may be sealed."""

from __future__ import annotations

import base64
import binascii
import re

import msgspec

from core.apiserver.registry.pods import text
from core.apiserver.registry.strategy import Cause, Document, Strategy
from core.apiserver.status import GoValue, forbidden, immutable, invalid_value, required

__all__ = ["ConfigMapStrategy", "SecretStrategy"]

_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_MAX_BYTES = 1024 * 1024
_SEALED = "field is immutable when `immutable` is set"
_WORDING = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', "
    "regex used for validation is '[-._a-zA-Z0-9]+')"
)


def _wrong(key: str) -> str:
    """Keys are names of files, beside which nodes have their own, which begin with two dots."""
    if not _KEY.fullmatch(key):
        return _WORDING
    if key in (".", ".."):
        return f"must not be '{key}'"
    return "must not start with '..'" if key.startswith("..") else ""


def _keys(document: Document, fields: tuple[str, ...]) -> list[Cause]:
    found = [
        invalid_value(f"{field}[{key}]", key, why)
        for field in fields
        for key in document.get(field) or ()
        for why in (_wrong(key),)
        if why
    ]
    size = sum(len(value) for field in fields for value in (document.get(field) or {}).values())
    if size > _MAX_BYTES * (4 / 3 if fields == ("data",) else 1):
        why = "Too long: may not be more than 1048576 bytes"
        # Kubernetes names the data of a Secret, and of a ConfigMap, which has two sorts, nothing: Go writes that so.
        field = "data" if fields == ("data",) else "[]"
        found.append({"reason": "FieldValueTooLong", "message": why, "field": field})
    return found


def _sealed(new: Document, old: Document, fields: tuple[str, ...]) -> list[Cause]:
    if not old.get("immutable"):
        return []
    found = [] if new.get("immutable") else [forbidden("immutable", _SEALED)]
    return found + [forbidden(each, _SEALED) for each in fields if (new.get(each) or {}) != (old.get(each) or {})]


class ConfigMapStrategy(Strategy):
    def validate(self, document: Document) -> list[Cause]:
        found = _keys(document, ("data", "binaryData"))
        both = set(document.get("data") or ()) & set(document.get("binaryData") or ())
        found += [invalid_value(f"data[{key}]", key, "duplicate of key present in binaryData") for key in sorted(both)]
        return found + _base64(document, "binaryData")

    def validate_update(self, new: Document, old: Document) -> list[Cause]:
        return _sealed(new, old, ("data", "binaryData"))


_ACCOUNT = "kubernetes.io/service-account.name"
_NEEDED = {
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}
"""Type of Secret -> the keys that it must have."""
_JSON_KEYS = {"kubernetes.io/dockerconfigjson": ".dockerconfigjson", "kubernetes.io/dockercfg": ".dockercfg"}
_SECRET_FIELDS = {"type": text("type")}


class SecretStrategy(Strategy):
    fields = _SECRET_FIELDS

    def complete(self, document: Document) -> None:
        if plain := document.pop("stringData", None):
            encoded = {key: base64.b64encode(str(value).encode()).decode() for key, value in plain.items()}
            document["data"] = {**(document.get("data") or {}), **encoded}
        if not document.get("type"):
            document["type"] = "Opaque"

    def validate(self, document: Document) -> list[Cause]:
        found, data = _keys(document, ("data",)) + _base64(document, "data"), document.get("data") or {}
        kind = document["type"]
        if kind == "kubernetes.io/service-account-token":
            if not (document["metadata"].get("annotations") or {}).get(_ACCOUNT):
                found.append(required(f"metadata.annotations[{_ACCOUNT}]"))
        elif kind == "kubernetes.io/basic-auth" and "username" not in data and "password" not in data:
            found += [required("data[username]"), required("data[password]")]
        found += [required(f"data[{key}]") for key in _NEEDED.get(kind, ()) if key not in data]
        if not found and kind in _JSON_KEYS:
            found += _json(f"data[{_JSON_KEYS[kind]}]", data[_JSON_KEYS[kind]])
        return found

    def validate_update(self, new: Document, old: Document) -> list[Cause]:
        found = [] if new["type"] == old["type"] else [immutable("type", new["type"])]
        return found + _sealed(new, old, ("data",))


def _json(field: str, value: str) -> list[Cause]:
    try:
        msgspec.json.decode(base64.b64decode(value))
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        return [invalid_value(field, GoValue('"<secret contents redacted>"'), str(error))]
    return []


def _base64(document: Document, field: str) -> list[Cause]:
    found = []
    for key, value in (document.get(field) or {}).items():
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError, TypeError):
            found.append(invalid_value(f"{field}[{key}]", "", "illegal base64 data"))
    return found
