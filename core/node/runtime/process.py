"""The process runtime: Pods are processes of this machine, forked from warm zygotes by the node's sandboxer.

Only `faaslite/<runtime>` images run here. What the sandboxer does lies in `sandboxer/`; this driver is its client, so that an agent
can be replaced while Pods serve. Volumes don't lie at their container paths but in a tree of each Pod's own; environment values that
name a mount's container path, something below it, or a folder above it are rewritten to where it lies (`sandboxer/slots.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from core import __version__, trace
from core.node.runtime.base import (
    ContainerSpec,
    Image,
    ImagePullError,
    RuntimeEvent,
    RuntimeEventType,
    RuntimeInfo,
    RuntimeUnavailable,
    SandboxInfo,
    SandboxSpec,
    Stats,
    Streams,
)
from core.node.runtime.process_client import SandboxerClient
from core.node.runtime.process_streams import ProcessStreams
from core.node.runtime.sandboxer.images import fits, image_name
from core.node.runtime.sandboxer.protocol import Call

__all__ = ["ProcessRuntime"]

log = logging.getLogger(__name__)
RECONNECT_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)


class ProcessRuntime:
    """`Runtime` over the sandboxer at the Unix socket `socket_path`."""

    def __init__(self, socket_path: Path | str) -> None:
        self._path = Path(socket_path)
        self._client: SandboxerClient | None = None
        self._events: asyncio.Queue[RuntimeEvent] = asyncio.Queue()
        self._reconnecting: asyncio.Task[None] | None = None
        self._closing = False
        self._info: RuntimeInfo | None = None

    async def start(self) -> None:
        self._closing = False
        if self._client is None:
            self._client = await self._connect()
        await self.info()

    async def close(self) -> None:
        self._closing = True
        if self._reconnecting is not None:
            self._reconnecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reconnecting
            self._reconnecting = None
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()

    async def _connect(self) -> SandboxerClient:
        return await SandboxerClient.connect(self._path, self._events.put_nowait, self._lost)

    def _lost(self, client: SandboxerClient) -> None:
        if self._closing or client is not self._client:
            return
        self._client = None
        self._reconnecting = asyncio.get_running_loop().create_task(self._reconnect())

    async def _reconnect(self) -> None:
        log.warning("lost the sandboxer at %s", self._path)
        attempt = 0
        while True:
            await asyncio.sleep(RECONNECT_SECONDS[min(attempt, len(RECONNECT_SECONDS) - 1)])
            attempt += 1
            try:
                self._client = await self._connect()
            except RuntimeUnavailable:
                continue
            log.info("connected to the sandboxer at %s again", self._path)
            self._events.put_nowait(RuntimeEvent(RuntimeEventType.LOST))
            return

    def _connected(self) -> SandboxerClient:
        if self._client is None:
            raise RuntimeUnavailable(f"there is no connection to the sandboxer at {self._path}")
        return self._client

    async def info(self) -> RuntimeInfo:
        reply = await self._connected().call("info")
        self._info = RuntimeInfo("process", __version__, tuple(reply.isolation), False, tuple(reply.text.split()))
        return self._info

    # Sandboxes and containers

    async def create_sandbox(self, spec: SandboxSpec) -> SandboxInfo:
        reply = await self._connected().call("create_sandbox", sandbox=spec)
        return reply.sandboxes[0]

    async def remove_sandbox(self, sandbox_id: str) -> None:
        await self._connected().call("remove_sandbox", target=sandbox_id)

    async def run_pod(self, sandbox: SandboxSpec, containers: Sequence[ContainerSpec]) -> SandboxInfo | None:
        """A parked child where there is one, else one forked on demand; None for Pods of several containers."""
        if len(containers) != 1 or not fits(containers[0].image, self._images()):
            return None
        if trace.ON:
            trace.mark("asked", f"{sandbox.namespace}/{sandbox.name}")
        reply = await self._connected().call("run_pod", sandbox=sandbox, containers=list(containers))
        return reply.sandboxes[0] if reply.sandboxes else None

    async def warm_up(self, sandbox: SandboxSpec, container: ContainerSpec) -> None:
        """The zygote of such Pods, with what they import, and its parked children."""
        if fits(container.image, self._images()):
            await self._connected().call("warm_up", sandbox=sandbox, containers=[container])

    async def create_container(self, sandbox_id: str, spec: ContainerSpec) -> str:
        reply = await self._connected().call("create_container", target=sandbox_id, containers=[spec])
        return reply.text

    async def start_container(self, container_id: str) -> None:
        await self._connected().call("start_container", target=container_id)

    async def stop_container(self, container_id: str, grace: float) -> None:
        await self._connected().call("stop_container", target=container_id, seconds=grace)

    async def remove_container(self, container_id: str) -> None:
        await self._connected().call("remove_container", target=container_id)

    async def list(self) -> Sequence[SandboxInfo]:
        return (await self._connected().call("list")).sandboxes

    async def events(self) -> AsyncIterator[RuntimeEvent]:
        while True:
            yield await self._events.get()

    async def exec(self, container_id: str, command: Sequence[str], timeout: float) -> tuple[int, bytes]:
        reply = await self._connected().call("exec", target=container_id, command=list(command), seconds=timeout)
        return reply.code, reply.output

    async def open_exec(self, container_id: str, command: Sequence[str], *, stdin: bool, tty: bool) -> Streams:
        self._connected()
        call = Call(1, "open_exec", target=container_id, command=list(command), stdin=stdin, tty=tty)
        return await ProcessStreams.open(self._path, call)

    async def attach(self, container_id: str, *, stdin: bool) -> Streams:
        self._connected()
        return await ProcessStreams.open(self._path, Call(1, "attach", target=container_id, stdin=stdin))

    async def stats(self, container_id: str) -> Stats:
        reply = await self._connected().call("stats", target=container_id)
        assert reply.stats is not None
        return reply.stats

    # Images

    def _images(self) -> Sequence[str]:
        return self._info.warm_images if self._info is not None else ()

    async def pull_image(self, image: str) -> Image:
        found = await self.find_image(image)
        if found is None:
            known = ", ".join(self._images())
            raise ImagePullError(
                f"process nodes run faaslite/<runtime> images only ({known}), not {image}; others need a node with a container engine"
            )
        return found

    async def find_image(self, image: str) -> Image | None:
        name = image_name(image)
        return Image(name, f"process://{name}") if fits(image, self._images()) else None

    async def images(self) -> Sequence[Image]:
        return [Image(name, f"process://{name}") for name in map(image_name, self._images())]

    async def remove_image(self, image: str) -> None:
        """Nothing to do: they are part of this installation, and there again at the next look."""
