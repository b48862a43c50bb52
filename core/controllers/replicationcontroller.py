"""The ReplicationController controller: the ReplicaSet controller, for the kind that ReplicaSets came from."""

from __future__ import annotations

from core.api.kinds import REPLICATION_CONTROLLER
from core.api.views import ReplicationController
from core.controllers.replicaset import ReplicaSetController

__all__ = ["ReplicationManager"]


class ReplicationManager(ReplicaSetController):
    kind = REPLICATION_CONTROLLER
    view = ReplicationController
    component = "replication-controller"
