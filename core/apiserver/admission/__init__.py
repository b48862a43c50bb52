"""The last word before the registry: rules that need the object, or the state of the cluster.

The chain is one table; each plugin is called with what is asked and may change the document of a creation. It must not write.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from core.api.kinds import CERTIFICATE_SIGNING_REQUEST, POD, Kind
from core.apiserver.admission.certificates import CertificateRequests, check_certificate_write
from core.apiserver.admission.escalation import GRANTING, check_escalation
from core.apiserver.admission.lifecycle import NamespaceLifecycle
from core.apiserver.admission.limits import LimitRanger
from core.apiserver.admission.node import RESTRICTED, NodeRestriction, check_node_write
from core.apiserver.admission.podsecurity import PodSecurity
from core.apiserver.admission.quota import Quota
from core.apiserver.admission.serviceaccounts import ServiceAccounts
from core.apiserver.admission.storage import StorageObjects
from core.apiserver.admission.tokensecrets import TokenSecrets
from core.apiserver.admission.webhooks import MutatingWebhooks
from core.apiserver.authn import MASTERS, User
from core.apiserver.authz.node import node_name
from core.apiserver.authz.rbac import Index
from core.apiserver.dispatch import RequestInfo
from core.apiserver.registry.generic import Asking, Review
from core.apiserver.webhooks.chain import Webhooks
from core.store.base import Store

__all__ = ["Admission", "Attributes", "Plugin"]

_REMEMBERED = 1024


class Attributes(NamedTuple):
    """`document` is what a creation would store; None with other verbs. `asking` are the webhooks that want to see it."""

    user: User
    info: RequestInfo
    kind: Kind
    document: dict[str, Any] | None = None
    asking: Asking | None = None


class Plugin(Protocol):
    @property
    def verbs(self) -> tuple[str, ...]:
        """The verbs that it is asked about."""

    @property
    def kinds(self) -> frozenset[str] | None:
        """The kinds (`Kind.resource`) that it has anything to say of; None for all."""

    async def admit(self, attributes: Attributes) -> None:
        """Raises an `ApiError` (`Forbidden`, mostly) where it refuses."""


class Admission:
    def __init__(self, store: Store, index: Index, webhooks: Webhooks) -> None:
        self.webhooks = webhooks
        self._pod_security = PodSecurity(store)
        self._quota = Quota(store)
        self._plugins: Sequence[Plugin] = (
            NamespaceLifecycle(store),
            NodeRestriction(store),
            CertificateRequests(),
            LimitRanger(store),
            StorageObjects(store),
            MutatingWebhooks(),
            ServiceAccounts(store),
            TokenSecrets(index),
            self._pod_security,
            self._quota,
        )
        self._index = index
        self._asked: dict[tuple[str, str], tuple[Plugin, ...]] = {}

    async def admit(self, attributes: Attributes) -> None:
        at = (attributes.info.verb, attributes.kind.resource)
        asked = self._asked.get(at)
        if asked is None:
            if len(self._asked) >= _REMEMBERED:
                self._asked.clear()
            asked = self._asked[at] = tuple(
                each for each in self._plugins if at[0] in each.verbs and (each.kinds is None or at[1] in each.kinds)
            )
        for each in asked:
            await each.admit(attributes)

    async def reviewing(self, user: User, kind: Kind, info: RequestInfo) -> Review | None:
        """`review` of an update; what is added to a Pod is held to the level of its namespace, what it uses to its quotas, whoever writes."""
        asked = self.review(user, kind, info)
        more: Review | None = None
        if kind.resource == POD.resource and info.subresource == "ephemeralcontainers":
            more = await self._pod_security.review(info.namespace)
        elif not info.subresource:
            more = await self._quota.review(kind, info.namespace)
        if asked is None or more is None:
            return asked or more

        def both(new: dict[str, Any], old: dict[str, Any] | None) -> None:
            asked(new, old)
            more(new, old)

        return both

    def review(self, user: User, kind: Kind, info: RequestInfo) -> Review | None:
        """What is asked about an object just before it is stored, with what it replaces; None where nothing is."""
        if MASTERS in user.groups:
            return None
        if kind.resource in GRANTING:
            return lambda new, old: check_escalation(self._index, user, kind, info.namespace, new, old)
        if kind.resource in RESTRICTED and node_name(user):
            return lambda new, old: check_node_write(user, kind, info.subresource, new, old)
        if kind.resource == CERTIFICATE_SIGNING_REQUEST.resource:
            return lambda new, old: check_certificate_write(self._index, user, kind, info.subresource, new, old)
        return None
