"""The Runtime protocol: what a node agent asks of whatever runs its Pods.

It follows the Container Runtime Interface (kubernetes/cri-api): a *sandbox* is a Pod's shared part (address, namespaces,
limits, log folder), containers live in it. Two things are added: `READY` events, by which a runtime that learns of
readiness from the workload itself spares the agent a probe, and *adoption*, by which a started sandbox is given to a Pod.

Every call may be repeated: creating what exists returns it, stopping or removing what is gone succeeds. Calls of one
sandbox are serialised by `guard.py`, but that its containers may be stopped side by side; drivers need no locks of their own.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from core.errors import FaasliteError

__all__ = [
    "AddressInUse", "ContainerInfo", "ContainerSpec", "ContainerState", "Image", "ImageNotFound", "ImagePullError", "Mount", "NotSupported",
    "Runtime", "RuntimeEvent", "RuntimeEventType", "RuntimeFailure", "RuntimeInfo", "RuntimeUnavailable", "SandboxInfo", "SandboxSpec", "Stats",
    "Streams", "Warmable",
]  # fmt: skip


class RuntimeFailure(FaasliteError):
    """The root of what a runtime raises. `reason` becomes the container's waiting reason."""

    reason = "RuntimeError"


class RuntimeUnavailable(RuntimeFailure):
    """The engine or the sandboxer doesn't answer; the node is NotReady while this lasts."""

    reason = "ContainerRuntimeUnavailable"


class ImageNotFound(RuntimeFailure):
    """The image isn't on the node and pulling is off, or no registry has it."""

    reason = "ErrImageNeverPull"


class ImagePullError(RuntimeFailure):
    """The image could not be had; the message says why and what to do."""

    reason = "ErrImagePull"


class NotSupported(RuntimeFailure):
    """This runtime can't do what the Pod asks; it will not help to try again."""

    reason = "NotSupported"


class AddressInUse(RuntimeFailure):
    """Somebody else listens at the Pod's address: another one will do."""

    reason = "AddressInUse"


class ContainerState(enum.Enum):
    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"


@dataclass(frozen=True, slots=True)
class Mount:
    """A host file or folder that the container sees at `container_path`.

    With `scratch` (bytes) it is none of the host's: an empty folder in memory that the runtime makes with the container, and that
    takes no more than that; `host_path` is "" then.
    """

    host_path: str
    container_path: str
    read_only: bool = False
    scratch: int = 0


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """A Pod's shared part.

    `address` is the Pod's IP where the agent assigns it (process nodes), "" where the runtime does. `log_dir` is a folder, made where it is missing,
    in which container NAME writes `NAME/RESTARTS.log`. `cpu` is in cores, `memory` in bytes; 0 is no limit.
    """

    uid: str
    name: str
    namespace: str
    log_dir: str
    address: str = ""
    hostname: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    dns_servers: Sequence[str] = ()
    dns_searches: Sequence[str] = ()
    cpu: float = 0.0
    memory: int = 0
    solitary: bool = False
    """Exactly one container will ever run in it at a time: a runtime may let the container be the sandbox itself."""


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One container, with everything resolved: env values, host paths of mounts.

    `cpu` is in cores, `cpu_request` likewise, `memory` in bytes; 0 is no limit. `attempt` is the restart count, part of the log file's
    name. `ports` are the TCP ports that the container declares; a process runtime binds the first of them on the Pod's
    address and passes the listening descriptor. With `no_capabilities` even root of the container has none.
    """

    name: str
    image: str
    command: Sequence[str] = ()
    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = ""
    mounts: Sequence[Mount] = ()
    ports: Sequence[int] = ()
    cpu: float = 0.0
    cpu_request: float = 0.0
    memory: int = 0
    user: int | None = None
    group: int | None = None
    read_only_root: bool = False
    no_capabilities: bool = False
    attempt: int = 0
    stop_signal: str = ""
    termination_message_path: str = "/dev/termination-log"
    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False
    """The first attachment that gave input ends it with its own."""
    added: bool = False
    """To a Pod that runs already: it shares what the Pod's own containers share, and they don't wait for it."""
    target: str = ""
    """Of one that is `added`: the container whose processes it sees, where the runtime can do that."""


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """A container as the runtime sees it. Times are seconds since the epoch, 0 where not reached."""

    id: str
    name: str
    sandbox_id: str
    state: ContainerState
    image: str = ""
    image_id: str = ""
    attempt: int = 0
    created_at: float = 0.0
    started_at: float = 0.0
    finished_at: float = 0.0
    exit_code: int | None = None
    oom_killed: bool = False
    message: str = ""
    """What the container wrote to its termination message path, 4096 bytes at most."""
    announced_ready: bool = False
    announces: bool = False
    """Whether it is going to say so (`announced_ready`) once it is ready, so that nobody need ask it meanwhile."""
    over: tuple[str, ...] = ()
    """Limits that it ran into a short while ago: reasons of `core.api.strain.STRAINS`, as far as the runtime looks for them."""


@dataclass(frozen=True, slots=True)
class SandboxInfo:
    """A sandbox as the runtime sees it."""

    id: str
    uid: str
    name: str
    namespace: str
    address: str
    created_at: float
    containers: Sequence[ContainerInfo] = ()


class RuntimeEventType(enum.Enum):
    STARTED = "started"
    READY = "ready"
    """The workload itself says that it serves: the agent takes it as the first success of its startup and readiness probes."""
    EXITED = "exited"
    STRAINED = "strained"
    """The limits that a container has run into (`over`) are others than before."""
    NOTED = "noted"
    """Something that whoever looks at the Pod should know: the agent records it as an event of the Pod."""
    LOST = "lost"
    """Events may have been missed (the connection broke and is back): read `list()` again."""


@dataclass(frozen=True, slots=True)
class RuntimeEvent:
    type: RuntimeEventType
    sandbox_id: str = ""
    uid: str = ""
    container: ContainerInfo | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Image:
    name: str
    id: str
    size: int = 0


@dataclass(frozen=True, slots=True)
class Stats:
    """Usage of a container: CPU time in nanoseconds since its start, resident memory in bytes."""

    cpu_ns: int
    memory: int


@dataclass(frozen=True, slots=True)
class RuntimeInfo:
    """`isolation` names what this node holds for each Pod, such as `no_new_privs landlock seccomp uid mount pid cgroup`."""

    name: str
    version: str
    isolation: Sequence[str] = ()
    assigns_addresses: bool = False
    """Whether the runtime gives Pods their addresses (Docker) or takes them from the agent (process)."""
    warm_images: Sequence[str] = ()


class Streams(Protocol):
    """A process's standard streams while somebody looks on: of a command beside a container's own, or of the container's.

    Nothing is buffered beyond one piece: a process that writes waits for whoever reads here.
    """

    async def read(self) -> tuple[int, bytes]:
        """The next piece of output and its stream, 1 or 2 (always 1 of a terminal); no data once there is no more. One reader.

        Raises `RuntimeFailure` where the connection to the process broke."""

    async def write(self, data: bytes) -> None:
        """To its standard input; waits while the process doesn't read. Nothing where it has none, or has closed it."""

    async def end_input(self) -> None:
        """No more input comes. A terminal has no such end: nothing happens to it."""

    async def resize(self, columns: int, rows: int) -> None:
        """Of its terminal; nothing where it has none."""

    async def wait(self) -> int:
        """The exit code of a command (128 + signal where one ended it); 0 of a container's own streams. After the output's end."""

    async def close(self) -> None:
        """Hang up; may be repeated. A command with a terminal gets a HUP, one without loses its input; a container lives on."""


@runtime_checkable
class Warmable(Protocol):
    """What a runtime may have besides: it can get ready for Pods before there is one."""

    async def warm_up(self, sandbox: SandboxSpec, container: ContainerSpec) -> None:
        """Pods of this namespace with this image and these mounts are likely to come; uid, name and log folder are empty, values that
        differ by Pod are left out."""


class Runtime(Protocol):
    """One per node. `start` is called once before anything else, `close` last; Pods outlive `close`."""

    async def start(self) -> None:
        """Connect, and learn of what already runs. Raises `RuntimeUnavailable`."""

    async def close(self) -> None:
        """Let go of connections and tasks; what runs keeps running."""

    async def info(self) -> RuntimeInfo: ...

    async def create_sandbox(self, spec: SandboxSpec) -> SandboxInfo: ...

    async def remove_sandbox(self, sandbox_id: str) -> None:
        """Kill and remove its containers too, and everything that the sandbox held on the host."""

    async def run_pod(self, sandbox: SandboxSpec, containers: Sequence[ContainerSpec]) -> SandboxInfo | None:
        """Give a warm sandbox to this Pod and start its containers in it, all in one step.

        None where none fits or the runtime has no warm ones: the agent then goes the ordinary way.
        """

    async def create_container(self, sandbox_id: str, spec: ContainerSpec) -> str:
        """The id. Raises `ImageNotFound`, `NotSupported`."""

    async def start_container(self, container_id: str) -> None: ...

    async def stop_container(self, container_id: str, grace: float) -> None:
        """TERM (or the image's stop signal), then KILL after `grace` seconds; returns once it has exited."""

    async def remove_container(self, container_id: str) -> None: ...

    async def list(self) -> Sequence[SandboxInfo]:
        """Everything of ours on this node, running or exited, also from before a restart of the agent."""

    def events(self) -> AsyncIterator[RuntimeEvent]:
        """Events from now on; one consumer."""

    async def exec(self, container_id: str, command: Sequence[str], timeout: float) -> tuple[int, bytes]:
        """Run to its end: exit code and output of both streams. Raises `NotSupported`, `TimeoutError`."""

    async def open_exec(self, container_id: str, command: Sequence[str], *, stdin: bool, tty: bool) -> Streams:
        """Start a command beside the container's process: its environment, volumes and limits, and nothing that it may not do.

        Raises `RuntimeFailure` where the container doesn't run. A command that can't be started ends with 126 or 127."""

    async def attach(self, container_id: str, *, stdin: bool) -> Streams:
        """The streams of the container's own process, from now on. Raises `RuntimeFailure` where it doesn't run."""

    async def stats(self, container_id: str) -> Stats: ...

    async def pull_image(self, image: str) -> Image:
        """Raises `ImagePullError`."""

    async def find_image(self, image: str) -> Image | None: ...

    async def images(self) -> Sequence[Image]: ...

    async def remove_image(self, image: str) -> None: ...
