"""What the fields of the built-in types are for, and which values they may have: only OpenAPI documents ask.

The data (`data/descriptions.json.gz`, made by `tools/make_descriptions.py`; the texts are Kubernetes' own, see NOTICE) is
`{"version", "types": {name: [description, {field: description}, {field: [values]}]}}`, with the names of the schema table. It is read
for each document anew and not kept: documents are made seldom, and a server that nobody asks shouldn't hold a megabyte of text.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType
from typing import NamedTuple

import msgspec

__all__ = ["Described", "digest", "read"]


class Described(NamedTuple):
    """A type: its description, those of its fields, and the values of fields that have only these."""

    text: str = ""
    fields: Mapping[str, str] = MappingProxyType({})
    values: Mapping[str, list[str]] = MappingProxyType({})


def _packed() -> bytes:
    return resources.files("core.apiserver").joinpath("data/descriptions.json.gz").read_bytes()


class _Data(msgspec.Struct):
    version: str
    types: dict[str, Described]


def read() -> dict[str, Described]:
    """By type name. Takes some 10 ms and a few MB, which are the caller's to drop."""
    return msgspec.json.decode(gzip.decompress(_packed()), type=_Data).types


@functools.cache
def digest() -> str:
    """Of the data: it changes when they do."""
    return hashlib.sha256(_packed()).hexdigest()
