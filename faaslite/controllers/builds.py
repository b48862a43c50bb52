"""Has the layers built that Functions need: a Pod for each, a token for it, and what comes of them."""

from __future__ import annotations

import base64
import contextlib
import logging
from collections.abc import Callable

from core.api.kinds import POD, ROLE_BINDING, SECRET, SERVICE_ACCOUNT
from core.api.meta import Document
from core.api.views import Pod
from core.client.events import Recorder, reference
from core.client.informer import Informer
from core.client.rest import Client
from core.errors import AlreadyExists, Conflict, NotFound
from faaslite.api import names
from faaslite.api.function import Function
from faaslite.api.layers import Wanted, wanted_layer
from faaslite.api.tenancy import BUILDER_ACCOUNT, role_binding
from faaslite.controllers import layers
from faaslite.controllers.layers import Decision
from faaslite.controllers.objects import FunctionObject

__all__ = ["Builds", "wanted_by"]

log = logging.getLogger(__name__)


def wanted_by(found: FunctionObject) -> Wanted | None:
    """The layer that a stored Function needs built."""
    return wanted_layer({"annotations": found.metadata.annotations}, found.spec)


class Builds:
    """`url` is the gateway's, `clock` gives seconds since the epoch; `functions` has an index `namespace`. Each method is for one Function."""

    def __init__(
        self, client: Client, functions: Informer[FunctionObject], pods: Informer[Pod], recorder: Recorder, *, url: str,
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._client = client
        self._functions = functions
        self._pods = pods
        self._recorder = recorder
        self._url = url
        self._clock = clock
        pods.add_index("build", _build_keys)

    def waiting_for(self, pod: Pod) -> list[str]:
        """The Functions (`namespace/name`) that a build Pod's news are for."""
        key = pod.metadata.labels.get(names.LABEL_BUILD)
        if not key:
            return []
        of = pod.metadata.labels.get(names.LABEL_BUILD_OF, "")
        neighbours = self._functions.by_index("namespace", pod.namespace)
        return [each.key for each in neighbours if each.name == of or _key_of(each) == key]

    async def ensure(self, found: FunctionObject, function: Function, wanted: Wanted) -> Decision:
        """See to it that the layer is there or being made. Raises what the API says to a new Pod."""
        neighbours = self._functions.by_index("namespace", found.namespace)
        known = (layers.known_layers(each.status).get(wanted.key) for each in (found, *neighbours))
        digest = next(filter(None, known), "")
        decision = layers.decide(wanted, digest, self._pods.by_index("build", f"{found.namespace}/{wanted.key}"))
        if decision.create:
            await self._create(found, function, wanted)
        elif decision.ended and (found.status.get("build") or {}).get("pod") == decision.pod:
            await self._forget_token(found.namespace, decision.pod)
        self._tell(found, decision)
        return decision

    def _tell(self, found: FunctionObject, decision: Decision) -> None:
        """Events, where the condition changes."""
        old: Document = next((each for each in found.status.get("conditions") or () if each.get("type") == "Built"), {})
        verdict = decision.verdict
        if (old.get("status"), old.get("reason"), old.get("message")) == (
            verdict.status,
            verdict.reason,
            verdict.message,
        ):
            return
        about = reference(names.FUNCTION, found)
        if decision.create:
            self._recorder.event(
                about, "Normal", "BuildStarted", f"Pod {decision.pod} is to build the dependency layer"
            )
        elif verdict.status == "False":
            log.info("%s: the layer was not built: %s", found.key, verdict.message)
            self._recorder.event(about, "Warning", verdict.reason, verdict.message)
        elif decision.digest and decision.ended:
            self._recorder.event(
                about, "Normal", "LayerBuilt", f"Pod {decision.pod} built the layer {decision.digest[:19]}"
            )

    async def _create(self, found: FunctionObject, function: Function, wanted: Wanted) -> None:
        namespace, uid = found.namespace, found.metadata.uid
        with contextlib.suppress(AlreadyExists):
            account: Document = {"metadata": {"name": BUILDER_ACCOUNT, "namespace": namespace}}
            await self._client.create(SERVICE_ACCOUNT, account, namespace)
        with contextlib.suppress(AlreadyExists):
            await self._client.create(ROLE_BINDING, role_binding(namespace, "builder", BUILDER_ACCOUNT), namespace)
        name = layers.pod_name(wanted)
        try:
            secret = await self._client.create(SECRET, layers.token_secret(function, wanted, uid), namespace)
        except AlreadyExists:
            secret = await self._client.get(SECRET, name, namespace)
        request = layers.token_request(secret)
        answer = await self._client.create(
            SERVICE_ACCOUNT, request, namespace, name=BUILDER_ACCOUNT, subresource="token"
        )
        token = base64.b64encode(str(answer["status"]["token"]).encode()).decode()
        await self._client.patch(SECRET, name, namespace, {"data": {"token": token}})
        try:
            await self._client.create(POD, layers.build_pod(function, wanted, uid, self._url), namespace)
        except AlreadyExists:
            live = await self._client.get(POD, name, namespace, as_=Pod)
            if (
                live.metadata.deletion_timestamp is not None
                or live.metadata.labels.get(names.LABEL_BUILD) != wanted.key
            ):
                raise Conflict(f"a Pod {name} from before is still there") from None
        else:
            log.info("%s: the Pod %s is to build its layer", found.key, name)

    async def _forget_token(self, namespace: str, pod: str) -> None:
        with contextlib.suppress(NotFound):
            await self._client.delete(SECRET, pod, namespace)

    async def tidy(self, found: FunctionObject, wanted: Wanted | None) -> float | None:
        """Delete build Pods that have served; seconds until the next one has."""
        own = [
            pod
            for pod in self._pods.by_index("build", f"{found.namespace}/of/{found.name}")
            if any(each.uid == found.metadata.uid for each in pod.metadata.owner_references)
        ]
        if not own:
            return None
        neighbours = self._functions.by_index("namespace", found.namespace)
        others = [each for each in (wanted_by(other) for other in neighbours if other.name != found.name) if each]
        gone, later = layers.stale(own, wanted, others, layers.known_layers(found.status), self._clock())
        for pod in gone:
            await self._forget_token(pod.namespace, pod.name)
            with contextlib.suppress(NotFound):
                await self._client.delete(POD, pod.name, pod.namespace, uid=pod.metadata.uid)
        return later


def _key_of(found: FunctionObject) -> str:
    wanted = wanted_by(found)
    return wanted.key if wanted is not None else ""


def _build_keys(pod: Pod) -> list[str]:
    labels = pod.metadata.labels
    key = labels.get(names.LABEL_BUILD)
    if not key:
        return []
    return [f"{pod.namespace}/{key}", f"{pod.namespace}/of/{labels.get(names.LABEL_BUILD_OF, '')}"]
