"""Bodies into documents that a registry may store: decoded, of the right kind, checked against the schema, with warnings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from core.api.kinds import Kind
from core.apiserver import body
from core.apiserver.cache import Document
from core.apiserver.crd import CustomSchema
from core.apiserver.registry.generic import Registry, Shape
from core.apiserver.request import ApiRequest, WriteOptions
from core.apiserver.schema import Schemas
from core.errors import BadRequest

__all__ = ["built_in_shape", "custom_shape", "looks_twice", "parse_document", "parse_options", "reshaped", "shaped"]

_ALWAYS = ("apiVersion", "kind", "metadata")
_DELETE_OPTIONS = Kind("", "v1", "DeleteOptions", "")


def built_in_shape(schemas: Schemas, kind: Kind) -> Shape:
    def check(document: Document, strict: bool) -> tuple[Document, list[str]]:
        return schemas.validate(kind, document, strict=strict)

    return check


def custom_shape(schema: CustomSchema) -> Shape:
    def check(document: Document, strict: bool) -> tuple[Document, list[str]]:
        found, warnings = schema.prune_default_validate(document)
        return found, list(warnings)

    return check


def parse_document(request: ApiRequest, kind: Kind, options: WriteOptions, *, shaped_next: bool = False) -> Document:
    """The body as a document of `kind`; a body that doesn't say its kind has the one of the path. Raises `BadRequest`.

    Where `shaped` is next, what is doubtful is left for it to tell with what it finds itself.
    """
    if not request.body:
        raise BadRequest("the request has no body")
    if body.media_type(request.content_type) == body.APPLY_PATCH:
        raise body.unknown_type()
    wanted = looks_twice(request, options)
    try:
        found, doubts = body.parse(request.body, request.content_type, strict=wanted)
    except BadRequest as error:
        raise _unrecognized(kind, error.message, request.body) from error
    if type(found) is not dict:
        raise BadRequest(f"the object provided is unrecognized (must be of type {kind.kind}): it isn't an object")
    version, name = found.get("apiVersion") or kind.api_version, found.get("kind") or kind.kind
    if version != kind.api_version:
        raise BadRequest(
            f"the API version in the data ({version}) does not match the expected API version ({kind.api_version})"
        )
    if name != kind.kind:
        raise BadRequest(
            f'{name} in version "{kind.version}" cannot be handled as a {kind.kind}: '
            f"the kind in the data ({name}) does not match the expected kind ({kind.kind})"
        )
    found["apiVersion"], found["kind"] = version, name
    if shaped_next:
        request.doubts = doubts
    else:
        _doubt(request, kind, options, doubts)
    return found


def looks_twice(request: ApiRequest, options: WriteOptions) -> bool:
    """Looking for duplicate fields reads the body a second time: only where the client asked for it."""
    return options.strict or (options.warn and "fieldValidation" in request.query)


def _unrecognized(kind: Kind, why: str, data: bytes) -> BadRequest:
    """In Kubernetes' words, with the start of what was sent: as text where it looks like JSON, else in hexadecimal."""
    why = why.removeprefix("the object provided is unrecognized: ")
    if why.startswith("json parse error"):
        why = f"couldn't get version/kind; {why}"
    start = data[:30]
    shown = start.decode("utf-8", "replace") if start.startswith(b"{") else start.hex()
    more = " ..." if len(data) > 30 else ""
    return BadRequest(f"the object provided is unrecognized (must be of type {kind.kind}): {why} ({shown}{more})")


def shaped(
    request: ApiRequest, registry: Registry, document: Document, options: WriteOptions, first: Sequence[str] = ()
) -> Document:
    """`document` as the schema has it. Raises `BadRequest`, with fieldValidation=Strict also for unknown fields, and for what is doubtful
    `first`: in the patch that made the document."""
    found, doubts = registry.shape(document, options.strict or options.warn)
    if first:
        doubts = [*first, *doubts]
    before, request.doubts = request.doubts, []
    if before and doubts:
        doubts = sorted(before + doubts, key=lambda each: _place(document, each))
    _doubt(request, registry.kind, options, doubts or before)
    _single_owners(request, found.get("metadata") or {})
    return found


def _single_owners(request: ApiRequest, metadata: Document) -> None:
    """An owner that is named twice in the same words counts once; the client is told."""
    owners = metadata.get("ownerReferences")
    if owners is None or len(owners) < 2:
        return
    kept: list[Document] = []
    twice = []
    for each in owners:
        if each in kept:
            twice.append(str(each.get("uid")))
        else:
            kept.append(each)
    if twice:
        metadata["ownerReferences"] = kept
        text = _TWICE + ", ".join(twice)
        request.warnings += [text] if text not in request.warnings else []


_TWICE = (
    ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject such requests as "
    "early as 1.24; please fix your requests; duplicate UID(s) observed: "
)
_STEP = re.compile(r"\[(\d+)\]|[^.\[]+")


def reshaped(
    request: ApiRequest,
    registry: Registry,
    document: Document,
    stored: Document,
    options: WriteOptions,
    first: Sequence[str] = (),
) -> Document:
    """As `shaped`, of a stored object of a built-in kind that was changed in part: fields whose value is the stored one itself were checked
    when it was stored, which spares the spec each time that a status is written."""
    parts = {key: value for key, value in document.items() if key in _ALWAYS or stored.get(key) is not value}
    found = shaped(request, registry, parts, options, first)
    return {key: found.get(key, value) for key, value in document.items() if key in found or key not in parts}


def _place(document: Document, doubt: str) -> list[int]:
    """Where in a document the field is that a message names (`unknown field "spec.foo"`): its place among its siblings, level by level."""
    value: Any = document
    found: list[int] = []
    for step in _STEP.finditer(doubt.partition('"')[2].rstrip('"')):
        if step[1] is not None and type(value) is list and int(step[1]) < len(value):
            found.append(int(step[1]))
            value = value[int(step[1])]
        elif type(value) is dict and step[0] in value:
            found.append(list(value).index(step[0]))
            value = value[step[0]]
        else:
            break
    return found


def _doubt(request: ApiRequest, kind: Kind, options: WriteOptions, doubts: list[str]) -> None:
    if not doubts:
        return
    if options.strict:
        raise BadRequest(
            f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: strict decoding error: {", ".join(doubts)}'
        )
    if options.warn:
        request.warnings += [each for each in doubts if each not in request.warnings]


def parse_options(request: ApiRequest, schemas: Schemas) -> Document:
    """The body of a deletion: options, or nothing. Raises `BadRequest`."""
    if not request.body:
        return {}
    found, _ = body.parse(request.body, request.content_type)
    if found is None:
        return {}
    if type(found) is dict and found.get("kind") not in (None, "", "DeleteOptions"):
        raise BadRequest(f"the kind in the data ({found['kind']}) does not match the expected kind (DeleteOptions)")
    return schemas.validate(_DELETE_OPTIONS, found, strict=False)[0]
