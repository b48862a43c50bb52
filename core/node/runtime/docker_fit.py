"""Which Pods a container that was started before them can take. Pure.

What is set at a container's creation and can't be changed afterwards is its `Shape`; what a Pod may bring along is its
environment, its name, and volumes at or below `ROOTS`. Everything else makes it go the ordinary way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

from core.node.runtime.base import ContainerSpec, SandboxSpec
from core.node.runtime.docker_spec import normal_image

__all__ = ["MAX_MESSAGE", "ROOTS", "WAITING_COST", "Shape", "place", "shares", "unfit"]

ROOTS: Mapping[str, str] = {"var": "/var/faaslite", "secrets": "/var/run/secrets"}
"""Folders of a waiting container in which volumes appear: name in its host folder -> container path."""
MAX_MESSAGE = 128 * 1024
"""Bytes of the message that carries the environment; a socket takes about 200 KiB at once."""
WAITING_COST = 40 << 20
"""Bytes that a waiting container is counted with: its Python, and the engine's process beside it."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a container is created with. Two Pods of one shape can take each other's containers."""

    image: str
    user: int | None = None
    group: int | None = None
    cpu: float = 0.0
    cpu_request: float = 0.0
    memory: int = 0
    read_only_root: bool = False
    no_capabilities: bool = False
    scratches: tuple[tuple[str, int], ...] = ()
    """Folders in memory: container path, bytes."""

    @classmethod
    def of(cls, spec: ContainerSpec) -> Shape:
        return cls(
            normal_image(spec.image), spec.user, spec.group, spec.cpu, spec.cpu_request, spec.memory, spec.read_only_root,
            spec.no_capabilities, tuple(sorted((each.container_path, each.scratch) for each in spec.mounts if each.scratch)),
        )  # fmt: skip

    def document(self) -> dict[str, Any]:
        return asdict(self)


def unfit(sandbox: SandboxSpec, containers: Sequence[ContainerSpec]) -> str:
    """Why a started container can't take this Pod, or ""."""
    if len(containers) != 1 or not sandbox.solitary:
        return "the Pod has several containers"
    spec = containers[0]
    if spec.attempt:
        return "the container has run before"
    for what, differs in (
        ("a command of its own", spec.command or spec.args),
        ("a stop signal of its own", spec.stop_signal),
        ("a terminal", spec.tty or spec.stdin),
        ("a termination message path of its own", spec.termination_message_path != "/dev/termination-log"),
    ):
        if differs:
            return f"the container has {what}"
    for each in spec.mounts:
        if not each.scratch and place(each.container_path) is None:
            return f"a volume is mounted at {each.container_path}, where none can appear in a started container"
    if sum(len(name) + len(value) + 8 for name, value in spec.env.items()) > MAX_MESSAGE:
        return "its environment is too large to be handed over"
    return ""


def place(container_path: str) -> str | None:
    """Where a container path lies, relative to the host folder of a waiting container; None where it can't be there."""
    path = PurePosixPath(container_path)
    for name, root in ROOTS.items():
        if path.is_relative_to(root) and path != PurePosixPath(root) and ".." not in path.parts:
            return f"{name}/{path.relative_to(root)}"
    return None


def shares(used: Mapping[Shape, float], each: int, budget: int) -> dict[Shape, int]:
    """How many containers of each shape shall wait: up to `each`, those used last first, for `budget` bytes in all."""
    left = budget // WAITING_COST
    found = {}
    for shape in sorted(used, key=lambda shape: -used[shape]):
        found[shape] = min(each, left)
        left -= found[shape]
    return found
