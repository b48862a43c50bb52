"""What a Pod's worker needs of its node."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.api import views
from core.client.events import Recorder
from core.node.addresses import AddressPool
from core.node.objects import ObjectCache
from core.node.runtime.base import Runtime
from core.node.specs import Dns
from core.node.volumes.manager import Volumes
from core.node.writer import StatusWriter

if TYPE_CHECKING:
    from core.node.pod_worker import PodWorker

__all__ = ["NodeContext"]


@dataclass(slots=True)
class NodeContext:
    """`addresses` is None where the runtime assigns them; `warm` says whether the runtime may have warm sandboxes."""

    runtime: Runtime
    runtime_name: str
    warm: bool
    host_ip: str
    log_root: Path
    dns: Dns
    allocatable: Mapping[str, str]
    addresses: AddressPool | None
    volumes: Volumes
    objects: ObjectCache
    writer: StatusWriter
    recorder: Recorder
    hint: Callable[[str, str, str], None]
    """(`namespace/name`, uid, address or "") -> the Pod is ready, or isn't any more: for who can't wait until the API says so."""
    service_environment: Callable[[str, bool], Mapping[str, str]]
    """(namespace, links) -> the variables of Services."""
    delete: Callable[[views.Pod], Awaitable[None]]
    """The final deletion (grace 0) of a Pod's object; returns once it is gone."""
    forget: Callable[[PodWorker], None]
    resync: Callable[[], Awaitable[None]]
    """Read the runtime's list and tell every worker."""
    spawn: Callable[[Coroutine[Any, Any, None], str], None]
    """Run something in the background, for as long as the agent lives."""
