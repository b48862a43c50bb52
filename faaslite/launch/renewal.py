"""A node's certificates are made anew when two thirds of their time are over, by the node itself.

What is being served and connected with the old ones can't change them in its stride: the agent ends, and its supervisor starts it again with
the new ones. Its Pods, which are the sandboxer's, don't notice.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NoReturn

from core.client.rest import Client
from core.node.joining import Credentials, JoinError, join, serving_certificate

__all__ = ["Renewal", "due"]

log = logging.getLogger(__name__)

_RETRY = 3600.0
_LONGEST = 86400.0


def due(begin: datetime, end: datetime, now: datetime) -> float:
    """Seconds until a certificate that is valid from `begin` to `end` is to be made anew; 0 where it is time."""
    return max(0.0, (begin + (end - begin) * 2 / 3 - now).total_seconds())


def _end() -> NoReturn:
    logging.shutdown()
    os._exit(0)


class Renewal:
    """A component. `keep` stores the client's and the server's certificate; `end` ends the process."""

    def __init__(
        self,
        client: Client,
        name: str,
        begin: datetime,
        end: datetime,
        keep: Callable[[Credentials, Credentials], None],
        restart: Callable[[], object] = _end,
    ) -> None:
        self._client = client
        self._name = name
        self._times = begin, end
        self._keep = keep
        self._restart = restart
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"certificates of {self._name}")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            left = due(*self._times, datetime.now(UTC))
            if left <= 0 and await self._renewed():
                break
            await asyncio.sleep(min(left, _LONGEST) if left > 0 else _RETRY)  # in days, for clocks may be set meanwhile
        log.info("node %s has new certificates, and starts again with them", self._name)
        self._restart()

    async def _renewed(self) -> bool:
        try:
            made = await join(self._client, self._name)
            self._keep(made, await serving_certificate(self._client, self._name))
        except (JoinError, OSError) as error:
            log.warning("the certificates of node %s are not renewed yet: %s", self._name, error)
            return False
        return True
