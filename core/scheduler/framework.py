"""What a scheduling plugin is: the protocols, and what their answers mean.

A plugin has a `name` and implements one or more of the protocols. The order of plugins is that of `registry.py`.
Plugins are synchronous and look at one snapshot; only a `PreBindPlugin` and a `BindPlugin` do I/O.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

from core.api.views import Pod
from core.scheduler.snapshot import NodeInfo

__all__ = [
    "MAX_SCORE", "SKIP", "BindPlugin", "ClusterEvent", "CycleState", "FilterPlugin", "Plugin", "PreBindPlugin", "PreFilterPlugin", "ReservePlugin",
    "ScorePlugin", "Skip", "Status", "WatchingPlugin",
]  # fmt: skip

MAX_SCORE = 100.0

CycleState = dict[str, Any]
"""What plugins hand on within one cycle, each under its own name."""


class ClusterEvent(enum.Enum):
    """What may make room for a Pod that found none."""

    NODE_ADDED = "NodeAdded"
    NODE_CHANGED = "NodeChanged"
    POD_REMOVED = "PodRemoved"
    VOLUME_CHANGED = "VolumeChanged"


@dataclass(frozen=True, slots=True)
class Status:
    """Why a node, or (from `pre_filter`) every node, won't do. `plugin` is who says so."""

    plugin: str
    reasons: tuple[str, ...]


class Skip(enum.Enum):
    SKIP = "skip"


SKIP: Final = Skip.SKIP
"""From `pre_filter`: this plugin has nothing to say about the Pod; its `filter` is not called in this cycle."""


class Plugin(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def helped_by(self) -> frozenset[ClusterEvent]:
        """The events that may turn this plugin's no into a yes."""


@runtime_checkable
class PreFilterPlugin(Protocol):
    name: str

    def pre_filter(self, state: CycleState, pod: Pod) -> Status | Skip | None:
        """Once per cycle: prepare `state`, or refuse the Pod for every node."""


@runtime_checkable
class FilterPlugin(Protocol):
    name: str

    def filter(self, state: CycleState, pod: Pod, node: NodeInfo) -> Status | None:
        """None where the Pod may run on the node."""


@runtime_checkable
class ScorePlugin(Protocol):
    name: str
    weight: float

    def score(self, state: CycleState, pod: Pod, node: NodeInfo) -> float:
        """How well the node suits the Pod; any scale that `normalise` understands."""

    def normalise(self, scores: Sequence[float]) -> Sequence[float]:
        """The scores of one cycle, brought to 0..MAX_SCORE, where more is better."""


@runtime_checkable
class ReservePlugin(Protocol):
    name: str

    def reserve(self, state: CycleState, pod: Pod, node: NodeInfo) -> Status | None:
        """After the choice, before the binding: hold what the Pod needs beyond the snapshot's accounts."""

    def unreserve(self, state: CycleState, pod: Pod, node: NodeInfo) -> None:
        """Undo `reserve`; called also where it failed."""


@runtime_checkable
class WatchingPlugin(Protocol):
    """One that reads more of the API than Pods and Nodes."""

    def watch(self, tell: Callable[[ClusterEvent], None]) -> None:
        """Call `tell` from now on when something happens that may help."""

    async def wait_synced(self) -> None: ...


@runtime_checkable
class PreBindPlugin(Protocol):
    name: str

    async def pre_bind(self, state: CycleState, pod: Pod, node_name: str) -> None:
        """Before the binding: see to it that the node can have what the Pod needs. Called where `state` has something under the plugin's name.
        Raises `core.errors.ApiError`: the Pod goes back to the queue."""


@runtime_checkable
class BindPlugin(Protocol):
    name: str

    async def bind(self, pod: Pod, node_name: str) -> None:
        """Make the choice known to the API. Raises `core.errors.ApiError`."""
