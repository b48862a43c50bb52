from __future__ import annotations

import pytest

from core.api.kinds import CLUSTER_ROLE
from core.controllers.clusterroleaggregation import ClusterRole, ClusterRoleAggregation

PODS = {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}
NODES = {"verbs": ["get"], "apiGroups": [""], "resources": ["nodes"]}
JOBS = {"verbs": ["*"], "apiGroups": ["batch"], "resources": ["jobs"]}


def role(name, rules, labels=None, of=None):
    document = {"metadata": {"name": name, "labels": labels or {}}, "rules": rules}
    if of:
        document["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": each} for each in of]}
    return document


@pytest.fixture
async def roles(plane):
    found = await plane.see(CLUSTER_ROLE, ClusterRole)
    await plane.run(ClusterRoleAggregation(plane.client, plane.informers))
    return found


async def test_rules_come_and_go_with_the_roles_that_match(plane, roles):
    await plane.client.create(CLUSTER_ROLE, role("a", [PODS], {"to": "x"}))
    await plane.client.create(CLUSTER_ROLE, role("made", [], of=[{"to": "x"}, {"to": "y"}]))
    await plane.until(lambda: roles.get("made") and roles.get("made").rules == [PODS])
    await plane.client.create(CLUSTER_ROLE, role("b", [JOBS, PODS], {"to": "y"}))
    await plane.until(lambda: roles.get("made").rules == [PODS, JOBS])
    await plane.client.delete(CLUSTER_ROLE, "a")
    await plane.until(lambda: roles.get("made").rules == [JOBS, PODS])
    await plane.client.patch(CLUSTER_ROLE, "b", "", {"metadata": {"labels": {"to": None}}})
    await plane.until(lambda: not roles.get("made").rules)


async def test_roles_made_of_made_ones(plane, roles):
    await plane.client.create(CLUSTER_ROLE, role("seen", [], {"into": "changed"}, of=[{"into": "seen"}]))
    await plane.client.create(CLUSTER_ROLE, role("changed", [], of=[{"into": "changed"}]))
    await plane.client.create(CLUSTER_ROLE, role("part", [NODES], {"into": "seen"}))
    await plane.until(lambda: roles.get("changed") and roles.get("changed").rules == [NODES])


async def test_hand_written_rules_of_an_aggregated_role_are_replaced(plane, roles):
    await plane.client.create(CLUSTER_ROLE, role("made", [JOBS], of=[{"to": "x"}]))
    await plane.until(lambda: roles.get("made") is not None and not roles.get("made").rules)
