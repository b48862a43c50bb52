"""A PATCH with `application/apply-patch+yaml`: the configuration read and checked, the object created or updated with it."""

from __future__ import annotations

from typing import Any

from core.apiserver import body
from core.apiserver.admission import Admission, Attributes
from core.apiserver.apply import Applier
from core.apiserver.authz import Authorizer
from core.apiserver.documents import shaped
from core.apiserver.managedfields import Who
from core.apiserver.patch import APPLY_PATCH
from core.apiserver.registry.generic import Registry, Written
from core.apiserver.request import APPLY_OPTIONS, ApiRequest, WriteOptions, write_options
from core.apiserver.status import conflict
from core.errors import AlreadyExists, BadRequest, NotFound

__all__ = ["APPLY_PATCH", "Applies"]


Document = dict[str, Any]


class Applies:
    def __init__(self, admission: Admission, authorizer: Authorizer) -> None:
        self._admission = admission
        self._authorizer = authorizer

    async def __call__(self, request: ApiRequest, registry: Registry, namespace: str) -> tuple[Written, bool]:
        """What was written, and whether the object is new. Raises `ApiError`."""
        info, options = request.info, write_options(request.query, APPLY_OPTIONS)
        config = _configuration(request, registry, options)
        applier = _applier(request, registry, config, options)
        review = await self._admission.reviewing(request.user, registry.kind, info)
        asking = self._admission.webhooks.asking(request, registry, "UPDATE")
        while True:
            try:
                written = await registry.update(
                    namespace,
                    info.name,
                    lambda old: old,
                    subresource=info.subresource,
                    dry_run=options.dry_run,
                    pinned=bool(config["metadata"].get("resourceVersion")),
                    applier=applier,
                    review=review,
                    asking=asking,
                )
                return written, False
            except NotFound:
                if info.subresource:
                    raise
            try:
                return await self._create(request, registry, config, applier, options), True
            except AlreadyExists:
                # Somebody was faster, so there is something to update now.
                if options.dry_run:
                    raise

    async def _create(
        self, request: ApiRequest, registry: Registry, config: Document, applier: Applier, options: WriteOptions
    ) -> Written:
        info = request.info._replace(verb="create")
        if config["metadata"].get("uid"):
            why = f"uid mismatch: the provided object specified uid {config['metadata']['uid']}, and no existing object was found"
            raise conflict(registry.kind, info.name, why)
        await self._authorizer.check(request.user, info)
        document = shaped(request, registry, {**config, "metadata": dict(config["metadata"])}, options)
        asking = self._admission.webhooks.asking(request, registry, "CREATE")
        await self._admission.admit(Attributes(request.user, info, registry.kind, document, asking))
        review = self._admission.review(request.user, registry.kind, info)
        return await registry.create(
            info.namespace, document, dry_run=options.dry_run, applier=applier, review=review, asking=asking
        )


def _configuration(request: ApiRequest, registry: Registry, options: WriteOptions) -> Document:
    """The body as an object of the kind. Raises `BadRequest`."""
    found, doubts = body.parse(request.body, APPLY_PATCH, strict=options.strict or options.warn)
    kind, info = registry.kind, request.info
    if type(found) is not dict:
        raise BadRequest("error decoding YAML: the configuration isn't an object")
    if options.strict and doubts:
        raise BadRequest(f"error decoding patch: strict decoding error: {', '.join(doubts)}")
    if options.warn:
        request.warnings += [each for each in doubts if each not in request.warnings]
    version, name = found.get("apiVersion") or "", found.get("kind") or ""
    if not version or not name:
        raise BadRequest(f"invalid object type: {version}, Kind={name}")
    if version != kind.api_version:
        raise BadRequest(
            f"Incorrect version specified in apply patch. Specified patch version: {version}, expected: {kind.api_version}"
        )
    if name != kind.kind:
        raise BadRequest(f"the kind in the data ({name}) does not match the expected kind ({kind.kind})")
    metadata = found.setdefault("metadata", {})
    if type(metadata) is not dict:
        raise BadRequest("metadata is no object")
    if metadata.get("managedFields") is not None:
        raise BadRequest("metadata.managedFields must be nil")
    if metadata.setdefault("name", info.name) != info.name:
        raise BadRequest(
            f"the name of the object ({metadata['name']}) does not match the name on the URL ({info.name})"
        )
    return found


def _applier(request: ApiRequest, registry: Registry, config: Document, options: WriteOptions) -> Applier:
    kind, info, strategy = registry.kind, request.info, registry.strategy
    if info.subresource == "status":
        reached = {key: each for key, each in config.items() if key in ("apiVersion", "kind", "metadata", "status")}
    else:
        reached = {key: each for key, each in config.items() if key != "status" or not strategy.has_status}
    what = f"{info.namespace}/{info.name}" if info.namespace else info.name
    try:
        return Applier(
            registry.node,
            reached,
            Who(request.manager, "Apply", "", info.subresource),
            kind.api_version,
            lambda document: shaped(request, registry, document, options),
            canonical=None if registry.open_schema is not None else lambda document: registry.shape(document, False)[0],
            has_status=strategy.has_status,
            status_metadata=not strategy.status_keeps_metadata,
            force=options.force,
        )
    except BadRequest as error:
        group = f"{kind.api_version}, Kind={kind.kind}" if kind.group else f"/{kind.version}, Kind={kind.kind}"
        if error.message.startswith("."):
            raise BadRequest(f"failed to create typed patch object ({what}; {group}): {error.message}") from error
        raise
