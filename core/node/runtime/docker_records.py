"""What the Docker driver knows of each sandbox and container, and their folders on the host."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from core.node.runtime.base import ContainerInfo, SandboxSpec
from core.node.runtime.docker_notify import NotifySocket

__all__ = ["Container", "Sandbox", "make_folder", "termination_message"]

_MESSAGE_BYTES = 4096


@dataclass(slots=True)
class Container:
    """`folder` is its own on the host. One that was started before its Pod came has a `slot`, the Pod's environment, which the engine
    doesn't know, and is as `info` says until it has ended."""

    id: str
    spec_name: str
    attempt: int
    tty: bool
    folder: Path
    stop_signal: str = "SIGTERM"
    slot: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    info: ContainerInfo | None = None
    notify: NotifySocket | None = None
    follower: asyncio.Task[None] | None = None
    exited: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Sandbox:
    """`pause` is the id of the container that holds its network, "" for a solitary one."""

    spec: SandboxSpec
    address: str
    created_at: float
    pause: str = ""
    containers: dict[str, Container] = field(default_factory=dict)


def make_folder(notify: Path, termination: Path) -> None:
    notify.mkdir(mode=0o755, parents=True, exist_ok=True)
    termination.touch()
    termination.chmod(0o666)


def termination_message(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MESSAGE_BYTES).decode(errors="replace").strip()
    except FileNotFoundError:
        return ""
