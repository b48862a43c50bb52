"""OpenAPI v3 documents, one per group and version, made from the kinds, the schema table and its descriptions. Pure.

They are what `kubectl explain`, client-side validation, strategic merge in `kubectl apply` and the check for `fieldValidation` and
`dryRun` read.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from core.api.kinds import Kind
from core.apiserver import descriptions, schema
from core.apiserver.openapi_pages import page, pages
from core.apiserver.openapi_paths import paths
from core.apiserver.openapi_types import Components, ref

__all__ = ["digests", "document", "index", "page_document"]

Schema = Mapping[str, Any]

_SECURITY = {
    "BearerToken": {
        "description": "Bearer Token authentication", "in": "header", "name": "authorization", "type": "apiKey",
    }
}  # fmt: skip


def digests(kinds: Sequence[Kind], crd_schemas: Mapping[Kind, Schema] | None = None) -> dict[str, str]:
    """`api/v1`, `apis/apps/v1` ... -> a digest of the document, which changes when the document does.

    What a document is made of stands for it: to hash the documents themselves would mean to make them all.
    """
    found: dict[str, str] = {}
    for prefix, members in sorted(_by_prefix(kinds).items()):
        source = [
            _makers(),
            schema.load().version,
            [repr(each) for each in members],
            [(crd_schemas or {}).get(each) for each in members],
        ]
        found[prefix] = hashlib.sha256(msgspec.json.encode(source)).hexdigest()[:32].upper()
    for at in pages(each.group for each in kinds):
        source = [_makers(), schema.load().version, at]
        found[at] = hashlib.sha256(msgspec.json.encode(source)).hexdigest()[:32].upper()
    return dict(sorted(found.items()))


@functools.cache
def _makers() -> str:
    """Of the code and the texts that documents are made with: clients keep a document for as long as its digest stands."""
    found = hashlib.sha256(descriptions.digest().encode())
    for each in sorted(Path(__file__).parent.glob("openapi*.py")):
        found.update(each.read_bytes())
    return found.hexdigest()


def index(digests: Mapping[str, str]) -> dict[str, Any]:
    """The answer to `GET /openapi/v3`: the documents there are."""
    return {"paths": {at: {"serverRelativeURL": f"/openapi/v3/{at}?hash={each}"} for at, each in digests.items()}}


def _by_prefix(kinds: Sequence[Kind]) -> dict[str, list[Kind]]:
    found: dict[str, list[Kind]] = {}
    for each in kinds:
        found.setdefault(each.prefix.lstrip("/"), []).append(each)
    return found


def document(
    kinds: Sequence[Kind], group: str, version: str, crd_schemas: Mapping[Kind, Schema] | None = None
) -> dict[str, Any] | None:
    """The answer to `GET /openapi/v3/apis/GROUP/VERSION` (`/openapi/v3/api/v1`), None where no kind is in it.

    `crd_schemas` has the `openAPIV3Schema` of custom kinds; one without a schema may hold anything.
    """
    members = [each for each in kinds if (each.group, each.version) == (group, version)]
    if not members:
        return None
    components = Components(schema.load(), descriptions.read())
    made: dict[str, Any] = {f"{members[0].prefix}/": {"get": _resources(components, group, version)}}
    for each in members:
        own = components.add_kind(each, (crd_schemas or {}).get(each))
        made.update(paths(each, own, components))
    return _whole(made, components.found)


def page_document(at: str) -> dict[str, Any]:
    """The answer to `GET /openapi/v3/AT` for one of `openapi_pages.pages`: what isn't a resource."""
    return _whole(*page(at))


def _whole(made: Mapping[str, Any], schemas: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": f"v{schema.load().version}.0"},
        "paths": made,
        "components": {"schemas": dict(sorted(schemas.items())), "securitySchemes": _SECURITY},
        "security": [{"BearerToken": []}],
    }


def _resources(components: Components, group: str, version: str) -> dict[str, Any]:
    listed = {"application/json": {"schema": ref(components.add_named("meta.v1.APIResourceList"))}}
    status = {"application/json": {"schema": ref(components.add_named("meta.v1.Status"))}}
    return {
        "description": "get available resources",
        "operationId": f"get{version[:1].upper()}{version[1:]}APIResources",
        "responses": {
            "200": {"description": "OK", "content": listed},
            "401": {"description": "Unauthorized", "content": status},
        },
    }
