"""ClusterRoles that are made of others: `aggregationRule` names by labels whose rules they hold together.

After https://kubernetes.io/docs/reference/access-authn-authz/rbac/#aggregated-clusterroles. Roles may be made of made ones, so each change
of rules is looked at again; equal rules are written once, and it ends when nothing changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import field

from core.api.kinds import CLUSTER_ROLE
from core.api.selectors import from_label_selector
from core.api.views import ObjectView, View
from core.client.informer import Informer, Informers
from core.client.reconciler import Reconciler
from core.client.rest import Client
from core.client.workqueue import WorkQueue
from core.errors import NotFound

__all__ = ["ClusterRoleAggregation", "aggregate"]

Rule = dict[str, Any]


class AggregationRule(View):
    cluster_role_selectors: list[dict[str, Any]] = field(default_factory=list)


class ClusterRole(ObjectView):
    rules: list[Rule] | None = None
    aggregation_rule: AggregationRule | None = field(default=None)


def aggregate(role: ClusterRole, roles: Iterable[ClusterRole]) -> list[Rule]:
    """The rules that `role` should have: those of every role that one of its selectors matches, each rule once, by name."""
    selectors = [
        from_label_selector(each) for each in (role.aggregation_rule or AggregationRule()).cluster_role_selectors
    ]
    found: list[Rule] = []
    for other in sorted(roles, key=lambda each: each.name):
        if other.name == role.name or not any(each and each.matches(other.metadata.labels) for each in selectors):
            continue
        found += [rule for rule in other.rules or () if rule not in found]
    return found


class ClusterRoleAggregation:
    def __init__(self, client: Client, informers: Informers) -> None:
        self._client = client
        self._roles: Informer[ClusterRole] = informers.watch(CLUSTER_ROLE, ClusterRole)
        self.queue = WorkQueue()
        self._reconciler = Reconciler("cluster-role-aggregation", self.sync, queue=self.queue, workers=1)
        self._roles.add_handler(self.on_role)

    async def start(self) -> None:
        await self._roles.wait_synced()
        await self._reconciler.start()

    async def stop(self) -> None:
        await self._reconciler.stop()

    def on_role(self, old: ClusterRole | None, new: ClusterRole | None) -> None:
        """Whatever changed may be part of any aggregated role; there are few of those."""
        for each in self._roles.values():
            if each.aggregation_rule is not None:
                self.queue.add(each.name)

    async def sync(self, name: str) -> None:
        role = self._roles.get(name)
        if role is None or role.aggregation_rule is None or role.metadata.deletion_timestamp is not None:
            return
        wanted = aggregate(role, self._roles.values())
        if wanted == (role.rules or []):
            return
        try:
            await self._client.patch(CLUSTER_ROLE, name, "", {"rules": wanted})
        except NotFound:
            return
