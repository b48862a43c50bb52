"""The Docker SDK on a bounded pool of threads, with its errors turned into ours."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import docker
import docker.errors
import requests

from core.node.runtime.base import Image, ImageNotFound, ImagePullError, RuntimeFailure, RuntimeUnavailable
from core.node.runtime.docker_spec import normal_image

__all__ = ["Absent", "Conflicting", "Engine"]

log = logging.getLogger(__name__)

LOCAL_PREFIX = "faaslite/"
"""Images that are built on the node and never come from a registry."""
CALL_SECONDS = 120


def _reach(base_url: str) -> None:
    """Raises OSError where nobody listens at a Unix socket: the SDK would leave its own one open."""
    if base_url.startswith("unix://"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(10)
            connection.connect(base_url.removeprefix("unix://"))


class Absent(RuntimeFailure):
    """The engine has no such container."""


class Conflicting(RuntimeFailure):
    """The engine has it already, or it is in another state."""


class Engine:
    """`base_url` is as in DOCKER_HOST; at most `threads` calls are under way."""

    def __init__(self, base_url: str, threads: int = 8) -> None:
        self.base_url = base_url
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="docker")
        self._threads = threads
        self._api: Any = None

    async def connect(self) -> None:
        """Raises `RuntimeUnavailable`."""

        def connect() -> Any:
            _reach(self.base_url)
            return docker.APIClient(
                self.base_url, version="auto", timeout=CALL_SECONDS, max_pool_size=self._threads, num_pools=4
            )

        if self._api is None:
            self._api = await self._run(connect)
        await self._run(self._api.ping)

    async def close(self) -> None:
        if self._api is not None:
            await self._run(self._api.close)
            self._api = None
        self._pool.shutdown(wait=False)

    async def do(self, call: str, *args: Any, **kwargs: Any) -> Any:
        """A method of `docker.APIClient`. Raises `Absent`, `Conflicting`, `ImageNotFound`, `RuntimeFailure`, `RuntimeUnavailable`."""
        if self._api is None:
            raise RuntimeUnavailable(f"there is no connection to the Docker engine at {self.base_url}")
        return await self._run(functools.partial(getattr(self._api, call), *args, **kwargs))

    async def remove(self, container_id: str) -> None:
        """Kill and remove a container; returns once it is gone, also where somebody else is removing it already."""
        with contextlib.suppress(Absent):
            try:
                await self.do("remove_container", container_id, force=True, v=True)
            except Conflicting:
                await self.do("wait", container_id, timeout=CALL_SECONDS, condition="removed")

    async def attempt(self, call: str, *args: Any, **kwargs: Any) -> None:
        """As `do`, for what doesn't matter if it fails."""
        try:
            await self.do(call, *args, **kwargs)
        except RuntimeFailure as error:
            log.debug("%s %s: %s", call, args, error)

    async def _run(self, function: Callable[[], Any]) -> Any:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, function)
        except docker.errors.ImageNotFound as error:
            raise ImageNotFound(str(error.explanation or error)) from error
        except docker.errors.NotFound as error:
            raise Absent(str(error.explanation or error)) from error
        except docker.errors.APIError as error:
            kind = Conflicting if error.status_code == 409 else RuntimeFailure
            raise kind(str(error.explanation or error)) from error
        except (OSError, docker.errors.DockerException, requests.exceptions.RequestException) as error:
            raise RuntimeUnavailable(f"the Docker engine at {self.base_url} doesn't answer: {error}") from error

    # Images

    async def find_image(self, image: str) -> Image | None:
        try:
            found = await self.do("inspect_image", normal_image(image))
        except (ImageNotFound, Absent):
            return None
        return Image(normal_image(image), found["Id"], int(found.get("Size", 0)))

    async def images(self) -> list[Image]:
        found = await self.do("images")
        return [
            Image(name, each["Id"], int(each.get("Size", 0)))
            for each in found
            for name in each.get("RepoTags") or ()
            if name != "<none>:<none>"
        ]

    async def pull_image(self, image: str) -> Image:
        """Raises `ImagePullError`, whose message says what to do."""
        name = normal_image(image)
        if image.startswith(LOCAL_PREFIX):
            found = await self.find_image(name)
            if found is None:
                raise ImagePullError(
                    f"{name} is not on this node, and images of that name are in no registry: build it there with "
                    "`faas images build`, or bring it with `docker load`"
                )
            return found
        repository, _, tag = name.partition("@") if "@" in name else name.rpartition(":")
        try:
            await self.do("pull", repository, tag)
            found = await self.find_image(name)
        except RuntimeFailure as error:
            raise ImagePullError(
                f"{name} could not be pulled ({error}); where no registry can be reached, bring it to this node with `docker load`"
            ) from error
        if found is None:
            raise ImagePullError(f"{name} was pulled, but the engine doesn't have it")
        return found
