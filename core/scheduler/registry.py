"""The table of scheduler plugins. To add one: a file in `plugins/` and a line here. The order is that of filtering: cheap and decisive first."""

from __future__ import annotations

from core.client.informer import Informers
from core.client.rest import Client
from core.scheduler.cycle import Profile
from core.scheduler.framework import FilterPlugin, Plugin, PreBindPlugin, PreFilterPlugin, ReservePlugin, ScorePlugin
from core.scheduler.plugins.node_affinity import NodeAffinity
from core.scheduler.plugins.node_name import NodeName
from core.scheduler.plugins.node_ports import NodePorts
from core.scheduler.plugins.node_resources import NodeResourcesFit
from core.scheduler.plugins.node_unschedulable import NodeUnschedulable
from core.scheduler.plugins.taint_toleration import TaintToleration
from core.scheduler.plugins.volume_binding import VolumeBinding

__all__ = ["PLUGINS", "plugins_of", "profile"]

PLUGINS: tuple[Plugin, ...] = (
    NodeUnschedulable(),
    NodeName(),
    TaintToleration(),
    NodeAffinity(),
    NodePorts(),
    NodeResourcesFit(),
)


def plugins_of(client: Client, informers: Informers) -> tuple[Plugin, ...]:
    """All plugins: those of `PLUGINS`, and those that read more of the API than Pods and Nodes."""
    return (*PLUGINS, VolumeBinding(client, informers))


def profile(plugins: tuple[Plugin, ...] = PLUGINS) -> Profile:
    """The plugins sorted by what they implement, each list in the order of the table."""
    return Profile(
        pre_filters=tuple(each for each in plugins if isinstance(each, PreFilterPlugin)),
        filters=tuple(each for each in plugins if isinstance(each, FilterPlugin)),
        scores=tuple(each for each in plugins if isinstance(each, ScorePlugin)),
        reserves=tuple(each for each in plugins if isinstance(each, ReservePlugin)),
        pre_binds=tuple(each for each in plugins if isinstance(each, PreBindPlugin)),
    )
