"""CertificateSigningRequests: nodes' own are approved, approved ones signed, and old ones taken away.

A node's client certificate is approved by itself where whoever asks may `create certificatesigningrequests/nodeclient` (who joins with a
bootstrap token) or `/selfnodeclient` (the node itself, for a newer one), and so is its agent's own (`/selfnodeserver`) where it is for the
node's serving name alone. Everything else waits for `kubectl certificate approve`.
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from msgspec import field

from core.api.kinds import CERTIFICATE_SIGNING_REQUEST, SUBJECT_ACCESS_REVIEW
from core.api.meta import Document
from core.api.views import ObjectView, View
from core.client.informer import Informer, Informers
from core.client.reconciler import Reconciler
from core.client.rest import Client
from core.client.workqueue import WorkQueue
from core.clock import parse_time, timestamp, wall
from core.controllers.signing import (
    KUBELET_CLIENT,
    KUBELET_SERVING,
    SIGNERS,
    Authority,
    common_name,
    is_kubelet_client,
    is_kubelet_serving,
    issue,
    refusal,
)
from core.errors import Conflict, NotFound

__all__ = ["CertificateController", "SigningRequest", "outdated_at"]

log = logging.getLogger(__name__)

_KIND = CERTIFICATE_SIGNING_REQUEST
DECIDED, PENDING = 3600.0, 24 * 3600.0
"""Seconds that a request stays after it was decided, and without a decision."""


class Spec(View):
    request: str = ""
    signer_name: str = ""
    usages: list[str] = field(default_factory=list)
    expiration_seconds: int | None = None
    username: str = ""
    uid: str = ""
    groups: list[str] = field(default_factory=list)
    extra: dict[str, list[str]] = field(default_factory=dict)


class RequestCondition(View):
    type: str = ""
    status: str = ""
    last_update_time: str | None = None


class Status(View):
    conditions: list[RequestCondition] = field(default_factory=list)
    certificate: str | None = None


class SigningRequest(ObjectView):
    spec: Spec = field(default_factory=Spec)
    status: Status = field(default_factory=Status)

    def condition(self, type_: str) -> RequestCondition | None:
        return next((each for each in self.status.conditions if each.type == type_), None)


def outdated_at(request: SigningRequest) -> float:
    """When (seconds since the epoch) nobody needs it any more, as Kubernetes' cleaner has it."""
    made = parse_time(request.metadata.creation_timestamp or timestamp(0))
    ends = []
    for type_ in ("Denied", "Failed", "Approved"):
        condition = request.condition(type_)
        if condition is not None and (type_ != "Approved" or request.status.certificate):
            ends.append((parse_time(condition.last_update_time) if condition.last_update_time else made) + DECIDED)
    if request.status.certificate:
        try:
            pem = base64.b64decode(request.status.certificate)
            ends.append(x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp())
        except (ValueError, binascii.Error):
            pass
    return min(ends) if ends else made + PENDING


class CertificateController:
    """`authority` signs; without one (None: the cluster's key is kept elsewhere) requests are approved and cleaned, and others sign."""

    def __init__(
        self,
        client: Client,
        informers: Informers,
        authority: Callable[[], Authority] | None,
        clock: Callable[[], float] = wall,
    ) -> None:
        self._client = client
        self._authority = authority
        self._clock = clock
        self._requests: Informer[SigningRequest] = informers.watch(_KIND, SigningRequest)
        self.queue = WorkQueue()
        self._reconciler = Reconciler("certificates", self.sync, queue=self.queue, workers=2)
        self._requests.add_handler(lambda old, new: self.queue.add(new.name) if new is not None else None)

    async def start(self) -> None:
        await self._requests.wait_synced()
        await self._reconciler.start()

    async def stop(self) -> None:
        await self._reconciler.stop()

    async def sync(self, name: str) -> float | None:
        """One step for one request; the seconds until it is looked at again."""
        request = self._requests.get(name)
        if request is None or request.metadata.deletion_timestamp is not None:
            return None
        now = self._clock()
        left = outdated_at(request) - now
        if left <= 0:
            await self._remove(request)
            return None
        if not request.status.certificate and not request.condition("Denied") and not request.condition("Failed"):
            try:
                if request.condition("Approved") is None:
                    await self._approve(request, now)
                elif self._authority is not None and request.spec.signer_name in SIGNERS:
                    await self._sign(request, self._authority(), now)
            except (NotFound, Conflict) as error:
                log.debug("the certificate request %s has changed: %s", name, error.message)
        return left + 1.0

    async def _remove(self, request: SigningRequest) -> None:
        try:
            await self._client.delete(_KIND, request.name, "", uid=request.metadata.uid)
        except (NotFound, Conflict):
            return
        log.info("removed the old certificate request %s", request.name)

    async def _approve(self, request: SigningRequest, now: float) -> None:
        spec, asked = request.spec, _parsed(request)
        if asked is None:
            return
        ways: tuple[tuple[str, str], ...] = ()
        if spec.signer_name == KUBELET_CLIENT and is_kubelet_client(asked, spec.usages):
            own = spec.username == common_name(asked)
            ways = (("nodeclient", "kubelet client"),)
            ways = (("selfnodeclient", "self kubelet client"), *ways) if own else ways
        elif spec.signer_name == KUBELET_SERVING and is_kubelet_serving(asked, spec.usages, spec.username):
            ways = (("selfnodeserver", "self kubelet server"),)
        for permission, what in ways:
            if await self._may(request, permission):
                message = f"Auto approving {what} certificate after SubjectAccessReview."
                await self._decide(request, "approval", _condition("Approved", "AutoApproved", message, now))
                return

    async def _may(self, request: SigningRequest, permission: str) -> bool:
        spec = request.spec
        attributes = {
            "group": _KIND.group,
            "resource": _KIND.plural,
            "verb": "create",
            "version": "*",
            "subresource": permission,
        }
        review = {
            "spec": {
                "user": spec.username, "groups": spec.groups, "uid": spec.uid, "extra": spec.extra, "resourceAttributes": attributes,
            },
        }  # fmt: skip
        found = await self._client.create(SUBJECT_ACCESS_REVIEW, review)
        return bool((found.get("status") or {}).get("allowed"))

    async def _sign(self, request: SigningRequest, authority: Authority, now: float) -> None:
        spec, asked = request.spec, _parsed(request)
        why = (
            "the request can't be read"
            if asked is None
            else refusal(spec.signer_name, asked, spec.usages, spec.username)
        )
        if authority.certificate.not_valid_after_utc <= datetime.fromtimestamp(now, UTC):
            log.error("the cluster's CA has expired: certificate requests wait; `faas certs rotate` makes a new one")
            return
        if asked is None or why:
            await self._decide(request, "status", _condition("Failed", "SignerValidationFailure", why, now))
            return
        pem = issue(authority, asked, spec.usages, spec.expiration_seconds, now)
        certificate = base64.b64encode(pem.encode()).decode()
        await self._write(request, "status", lambda status: {**status, "certificate": certificate})

    async def _decide(self, request: SigningRequest, subresource: str, condition: Document) -> None:
        def change(status: Document) -> Document:
            return {**status, "conditions": [*(status.get("conditions") or ()), condition]}

        await self._write(request, subresource, change)

    async def _write(self, request: SigningRequest, subresource: str, change: Callable[[Document], Document]) -> None:
        document: dict[str, Any] = await self._client.get(_KIND, request.name, "")
        if document["metadata"]["resourceVersion"] != request.metadata.resource_version:
            return  # the change is on its way here
        document["status"] = change(document.get("status") or {})
        await self._client.update(_KIND, document, subresource=subresource)


def _parsed(request: SigningRequest) -> x509.CertificateSigningRequest | None:
    try:
        return x509.load_pem_x509_csr(base64.b64decode(request.spec.request))
    except (ValueError, binascii.Error):
        return None


def _condition(type_: str, reason: str, message: str, now: float) -> Document:
    at = timestamp(now)
    return {
        "type": type_, "status": "True", "reason": reason, "message": message, "lastUpdateTime": at, "lastTransitionTime": at,
    }  # fmt: skip
