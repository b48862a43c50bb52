"""Names, labels and the other metadata of objects: what may be said, in Kubernetes' words, and random suffixes.

The rules are those of https://kubernetes.io/docs/concepts/overview/working-with-objects/names/ and .../labels/.
"""

from __future__ import annotations

import os
import random
import re
from typing import Any

from core.apiserver.status import duplicate, forbidden, immutable, invalid_value, required

__all__ = [
    "check_annotations", "check_labels", "check_metadata", "check_metadata_update", "generate", "label", "label_1035", "new_uid", "path_segment",
    "qualified", "subdomain",
]  # fmt: skip

Cause = dict[str, str]

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_random = random.SystemRandom()


def generate(base: str) -> str:
    """`base` and five random characters; a long base is cut so that the whole has 63."""
    return base[:58] + "".join(_random.choices(_ALPHABET, k=5))


def new_uid() -> str:
    """A random UUID (RFC 9562, version 4), for a third of what the library takes."""
    text = os.urandom(16).hex()
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{'89ab'[int(text[16], 16) & 3]}{text[17:20]}-{text[20:]}"


def label(name: str) -> str:
    """Why `name` is no DNS label (RFC 1123); "" where it is one."""
    if len(name) > 63:
        return "must be no more than 63 characters"
    if not _LABEL.fullmatch(name):
        return (
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an "
            f"alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{_LABEL.pattern}')"
        )
    return ""


def label_1035(name: str) -> str:
    """Why `name` is no DNS label of RFC 1035, the stricter rule for Services; "" where it is one."""
    if len(name) > 63:
        return "must be no more than 63 characters"
    if not _LABEL_1035.fullmatch(name):
        return (
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end "
            f"with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '{_LABEL_1035.pattern}')"
        )
    return ""


def subdomain(name: str) -> str:
    """Why `name` is no DNS subdomain; "" where it is one."""
    if len(name) > 253:
        return "must be no more than 253 characters"
    if not _SUBDOMAIN.fullmatch(name):
        return (
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end "
            f"with an alphanumeric character (e.g. 'example.com', regex used for validation is '{_SUBDOMAIN.pattern}')"
        )
    return ""


def path_segment(name: str) -> str:
    """Why `name` can't be part of a URL's path; "" where it can."""
    if name in (".", ".."):
        return f"may not be '{name}'"
    return next((f"may not contain '{each}'" for each in "/%" if each in name), "")


def qualified(name: str) -> str:
    """Why `name` is no label key (`[prefix/]name`); "" where it is one."""
    if name.count("/") > 1:
        return (
            "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
            f"character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{_QUALIFIED.pattern}') with an "
            "optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        )
    prefix, slash, local = name.rpartition("/")
    if slash and not prefix:
        return "prefix part must be non-empty"
    if slash and (why := subdomain(prefix)):
        return f"prefix part {why}"
    if not local:
        return "name part must be non-empty"
    if len(local) > 63:
        return "name part must be no more than 63 characters"
    if not _QUALIFIED.fullmatch(local):
        return (
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
            f"(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{_QUALIFIED.pattern}')"
        )
    return ""


def _label_value(value: str) -> str:
    if len(value) > 63:
        return "must be no more than 63 characters"
    if value and not _QUALIFIED.fullmatch(value):
        return (
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with "
            f"an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '({_QUALIFIED.pattern})?')"
        )
    return ""


def check_labels(labels: dict[str, str] | None, field: str) -> list[Cause]:
    found = []
    for key, value in (labels or {}).items():
        if why := qualified(key):
            found.append(invalid_value(field, key, why))
        if why := _label_value(value):
            found.append(invalid_value(field, value, why))
    return found


def check_annotations(annotations: dict[str, str] | None, field: str) -> list[Cause]:
    size, found = 0, []
    for key, value in (annotations or {}).items():
        size += len(key) + len(value)
        if why := qualified(key.lower()):
            found.append(invalid_value(field, key, why))
    if size > 256 * 1024:
        found.append(
            {"reason": "FieldValueTooLong", "message": "Too long: may not be more than 262144 bytes", "field": field}
        )
    return found


def _check_owners(owners: list[dict[str, Any]]) -> list[Cause]:
    found, controllers = [], 0
    for index, owner in enumerate(owners):
        at = f"metadata.ownerReferences[{index}]"
        found += [
            invalid_value(f"{at}.{key}", "", f"{key if key != 'apiVersion' else 'version'} must not be empty")
            for key in ("apiVersion", "kind", "name", "uid")
            if not owner.get(key)
        ]
        controllers += bool(owner.get("controller"))
    if controllers > 1:
        found.append(
            invalid_value(
                "metadata.ownerReferences", len(owners), "Only one reference can have Controller set to true."
            )
        )
    return found


def check_metadata(metadata: dict[str, Any], why_no_name: str) -> list[Cause]:
    """Causes in the metadata of an object that is to be stored."""
    found = []
    if not metadata.get("name"):
        found.append(required("metadata.name", "name or generateName is required"))
    elif why_no_name:
        found.append(invalid_value("metadata.name", metadata["name"], why_no_name))
    if labels := metadata.get("labels"):
        found += check_labels(labels, "metadata.labels")
    if annotations := metadata.get("annotations"):
        found += check_annotations(annotations, "metadata.annotations")
    if owners := metadata.get("ownerReferences"):
        found += _check_owners(owners)
    if finalizers := metadata.get("finalizers"):
        found += [
            invalid_value(f"metadata.finalizers[{index}]", each, why)
            for index, each in enumerate(finalizers)
            if (why := qualified(each))
        ]
        if "orphan" in finalizers and "foregroundDeletion" in finalizers:
            found.append(
                invalid_value(
                    "metadata.finalizers", finalizers, "finalizer orphan and foregroundDeletion cannot be both set"
                )
            )
        found += [
            duplicate(f"metadata.finalizers[{index}]", each)
            for index, each in enumerate(finalizers)
            if each in finalizers[:index]
        ]
    return found


def check_metadata_update(new: dict[str, Any], old: dict[str, Any]) -> list[Cause]:
    """Causes in what an update would change of the metadata."""
    found = []
    if (uid := new.get("uid")) and uid != old.get("uid"):
        found.append(immutable("metadata.uid", uid))
    if old.get("deletionTimestamp"):
        added = [each for each in new.get("finalizers") or () if each not in (old.get("finalizers") or ())]
        if added:
            listed = ", ".join(f'"{each}"' for each in added)
            found.append(
                forbidden(
                    "metadata.finalizers",
                    f"no new finalizers can be added if the object is being deleted, found new finalizers []string{{{listed}}}",
                )
            )
    return found
