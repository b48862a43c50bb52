"""The webhooks of a request, in order: mutating ones by name one after the other, then validating ones all at once.

What a mutating webhook changed is shown once more to those before it that asked for it (`reinvocationPolicy: IfNeeded`). Configurations of
webhooks and reviews are never shown to webhooks. A request that no webhook wants costs one look at an empty list.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from core.api.kinds import MUTATING_WEBHOOK_CONFIGURATION, NAMESPACE, VALIDATING_WEBHOOK_CONFIGURATION, Kind
from core.apiserver.cache import Cache
from core.apiserver.follow import Following
from core.apiserver.patch_json import json_patch
from core.apiserver.registry.generic import Registry
from core.apiserver.request import ApiRequest
from core.apiserver.scale import read_scale, with_replicas
from core.apiserver.served import Served
from core.apiserver.webhooks.calls import CallFailed, Calls
from core.apiserver.webhooks.hooks import Hook, Target, read
from core.apiserver.webhooks.reviews import BadAnswer, Verdict, denial, question, verdict
from core.errors import ApiError, InternalError
from core.store.base import Store

__all__ = ["Asking", "AskingOfScale", "Webhooks"]

log = logging.getLogger(__name__)

Document = dict[str, Any]
_KINDS = (MUTATING_WEBHOOK_CONFIGURATION, VALIDATING_WEBHOOK_CONFIGURATION)
_CONNECT = "CONNECT"
_EXEMPT_GROUPS = ("authentication.k8s.io", "authorization.k8s.io")


class Webhooks:
    """`start` takes in the stored configurations; from then on they are followed."""

    def __init__(self, store: Store, served: Served, cache: Cache) -> None:
        self._store = store
        self._served = served
        self._cache = cache
        self.calls = Calls(store, cache)
        self._read: dict[tuple[Kind, str], list[Hook]] = {}
        self.mutating: list[Hook] = []
        self.validating: list[Hook] = []
        self._following = Following(store, _KINDS, self._put, self._drop)

    async def start(self) -> None:
        await self._following.start()

    async def stop(self) -> None:
        await self._following.stop()
        await self.calls.close()

    def _put(self, kind: Kind, key: str, document: Document) -> None:
        self._read[kind, key] = read(document)
        self._order()

    def _drop(self, kind: Kind, key: str) -> None:
        self._read.pop((kind, key), None)
        self._order()

    def _order(self) -> None:
        ordered = sorted(self._read.items(), key=lambda item: item[0][1])
        self.mutating = [hook for (kind, _), hooks in ordered if kind == _KINDS[0] for hook in hooks]
        self.validating = [hook for (kind, _), hooks in ordered if kind == _KINDS[1] for hook in hooks]

    def asking(self, request: ApiRequest, registry: Registry, operation: str, name: str = "") -> Asking | None:
        """Who is to be asked about a request; None where nobody is, which is nearly always."""
        if not self.mutating and not self.validating:
            return None
        kind = registry.kind
        if kind.group == _KINDS[0].group or kind.group in _EXEMPT_GROUPS:
            return None
        target = Target(operation, kind, request.info.subresource, self._versions(registry))
        mutating = [(hook, version) for hook in self.mutating if (version := hook.version(target))]
        validating = [(hook, version) for hook in self.validating if (version := hook.version(target))]
        if not mutating and not validating:
            return None
        return Asking(self, request, registry, target, name or request.info.name, mutating, validating)

    def asking_scale(self, request: ApiRequest, registry: Registry) -> AskingOfScale | None:
        """The same about an update of the subresource `scale`, which is a `Scale` to everybody."""
        asking = self.asking(request, registry, "UPDATE")
        return None if asking is None else AskingOfScale(asking, registry)

    async def deletion(self, request: ApiRequest, registry: Registry, name: str) -> None:
        """Ask whether an object may be deleted. Raises `ApiError`."""
        asking = self.asking(request, registry, "DELETE", name)
        if asking is not None:
            namespace = request.info.namespace if registry.kind.namespaced else ""
            old = registry.codec.document(await registry.get(namespace, name))
            await asking.mutate(None, old)
            await asking.validate(None, old)

    def _versions(self, registry: Registry) -> tuple[str, ...]:
        """The other versions in which a custom resource is served: they differ in nothing but their name."""
        kind = registry.kind
        if registry.open_schema is None:
            return ()
        return tuple(
            each.version
            for each in self._served.kinds()
            if (each.group, each.plural) == (kind.group, kind.plural) and each.version != kind.version
        )

    async def namespace_labels(self, name: str) -> Mapping[str, str]:
        entry = await self._store.get(f"/{NAMESPACE.resource}/{name}")
        return {} if entry is None else self._cache.document(entry)["metadata"].get("labels") or {}


class Asking:
    """The webhooks that match one request. Documents that it is given are not changed."""

    def __init__(
        self,
        webhooks: Webhooks,
        request: ApiRequest,
        registry: Registry,
        target: Target,
        name: str,
        mutating: Sequence[tuple[Hook, str]],
        validating: Sequence[tuple[Hook, str]],
    ) -> None:
        self._webhooks = webhooks
        self._request = request
        self._registry = registry
        self._target = target
        self._name = name
        self._mutating = mutating
        self._validating = validating

    async def mutate(self, new: Document | None, old: Document | None) -> Document | None:
        """`new` as the mutating webhooks leave it, checked against its schema after each change. Raises `ApiError` where one refuses."""
        if not self._mutating:
            return new
        if new is not None and not self._target.subresource:
            new.setdefault("metadata", {})
            self._registry.strategy.complete(new)
        first, changed_after = new, -1
        again: list[int] = []
        for index, (hook, version) in enumerate(self._mutating):
            was = new
            new = await self._one(hook, version, new, old)
            if new is not was:
                changed_after = index
            if hook.again:
                again.append(index)
        for index in again:
            if index < changed_after and new is not first:
                hook, version = self._mutating[index]
                new = await self._one(hook, version, new, old)
        return new

    async def _one(self, hook: Hook, version: str, new: Document | None, old: Document | None) -> Document | None:
        found = await self._ask(hook, version, new, old)
        if found is None or not found.patch or new is None:
            return new
        try:
            patched = {**json_patch(self._as(new, version) or {}, found.patch), "apiVersion": new["apiVersion"]}
            if new.get("kind") == self._registry.kind.kind:
                patched = self._registry.shape(patched, False)[0]
                self._registry.strategy.complete(patched)
            return patched
        except ApiError as error:
            if hook.ignore:
                log.warning("the patch of webhook %s doesn't apply: %s", hook.name, error.message)
                return new
            raise InternalError(f"Internal error occurred: {error.message}") from error

    async def validate(self, new: Document | None, old: Document | None) -> None:
        """Ask all validating webhooks at once. Raises the `ApiError` of the first, in their order, that refuses."""
        if not self._validating:
            return
        answers = await asyncio.gather(
            *(self._ask(hook, version, new, old) for hook, version in self._validating), return_exceptions=True
        )
        for each in answers:
            if isinstance(each, BaseException):
                raise each

    async def _ask(self, hook: Hook, version: str, new: Document | None, old: Document | None) -> Verdict | None:
        """None where the hook doesn't want this object, or failed and may. Raises what it refuses with."""
        request, target = self._request, self._target
        labels = [
            each["metadata"].get("labels") or {} for each in (new, old) if each is not None and "metadata" in each
        ]
        if not labels and target.operation != _CONNECT:  # the options of a connection have none that could be selected
            labels = [{}]
        if not hook.selects(labels, await self._namespace(hook, labels)):
            return None
        uid, dry_run = str(uuid.uuid4()), bool(request.query.get("dryRun"))
        options: Document = {"dryRun": ["All"]} if dry_run else {}
        if manager := request.query.get("fieldManager"):
            options["fieldManager"] = manager
        kind = target.kind
        seen = Kind(kind.group, version, kind.kind, kind.plural, kind.namespaced)
        shown = new or old or {}
        review = question(
            uid, seen, target.subresource, target.operation, request.user,
            asked=kind, namespace=request.info.namespace if kind.namespaced else "",
            name=self._name or shown.get("metadata", {}).get("name") or "",
            new=self._as(new, version), old=self._as(old, version), dry_run=dry_run, options=options,
        )  # fmt: skip
        try:
            found = verdict(await self._webhooks.calls.ask(hook, review), uid)
        except (CallFailed, BadAnswer) as error:
            why = f"failed to call webhook: {error}" if isinstance(error, CallFailed) else str(error)
            if hook.ignore:
                log.warning("webhook %s is passed over: %s", hook.name, why)
                return None
            raise InternalError(f'Internal error occurred: failed calling webhook "{hook.name}": {why}') from error
        request.warnings += [each for each in found.warnings if each not in request.warnings]
        request.annotations.update({f"{hook.name}/{key}": each for key, each in found.annotations.items()})
        if not found.allowed:
            raise denial(hook.name, found.status)
        return found

    async def _namespace(self, hook: Hook, labels: Sequence[Mapping[str, str]]) -> Mapping[str, str] | None:
        if hook.namespaces is None:
            return None
        if self._target.kind == NAMESPACE:
            return labels[0] if labels else {}
        if not self._target.kind.namespaced:
            return None
        return await self._webhooks.namespace_labels(self._request.info.namespace)

    def _as(self, document: Document | None, version: str) -> Document | None:
        kind = self._target.kind
        if document is None or version == kind.version:
            return document
        return {**document, "apiVersion": f"{kind.group}/{version}" if kind.group else version}


class AskingOfScale:
    """`Asking` about a `Scale`, of objects that have one."""

    def __init__(self, asking: Asking, registry: Registry) -> None:
        self._asking = asking
        self._registry = registry

    async def mutate(self, new: Document | None, old: Document | None) -> Document | None:
        if new is None:
            return None
        seen = self._scale(new)
        found = await self._asking.mutate(seen, self._scale(old))
        if found is None or found is seen:
            return new
        return with_replicas(new, found, self._registry.scale)

    async def validate(self, new: Document | None, old: Document | None) -> None:
        await self._asking.validate(self._scale(new), self._scale(old))

    def _scale(self, document: Document | None) -> Document | None:
        return None if document is None else read_scale(self._registry.kind, document, self._registry.scale)
