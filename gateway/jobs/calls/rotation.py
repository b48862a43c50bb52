"""A new key for the requests of queued calls: from then on it encrypts, what others encrypted is written again, and they go.

Where other processes share the queue nobody rotates: they would get calls that they can't read. Once they are down, and have the same file, whoever
starts first does it.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path

from core.keyring import KeyRing, KeyRingError
from gateway.jobs.calls.base import Calls, CallsError, KeysShared

__all__ = ["Rotation"]

log = logging.getLogger(__name__)


class Rotation:
    """On its start, and at SIGHUP, what isn't encrypted with the first key of the file `keys` is written again; a rotation is over when one key is left."""

    def __init__(self, calls: Calls, keys: Path) -> None:
        self._calls = calls
        self._keys = keys
        self._task: asyncio.Task[None] | None = None
        self._told = False

    async def start(self) -> None:
        """The work itself goes on behind it: what waits in the queue can be read with the old keys meanwhile."""
        self._begin()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._on_hangup)

    async def stop(self) -> None:
        """What is half done is done at the next start."""
        asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)
        self._told = False
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    def _on_hangup(self) -> None:
        if self._task is None or self._task.done():
            self._begin(asked=True)
        else:
            self._told = True

    def _begin(self, asked: bool = False) -> None:
        self._task = asyncio.get_running_loop().create_task(self._work(asked), name="rotation of keys")

    async def _work(self, asked: bool) -> None:
        while True:
            try:
                await self.rotate(asked)
            except (CallsError, KeyRingError) as error:
                log.warning("the keys of queued calls were not rotated: %s", error)
            except Exception:
                log.exception("the keys of queued calls were not rotated")
            if not self._told:
                return
            self._told, asked = False, True

    async def rotate(self, asked: bool = False) -> None:
        """One rotation, where the file has more than one key. Raises `KeysShared`: nothing has changed then, and a key that was made only for
        this (`asked`) leaves the file. Raises `CallsError` and `KeyRingError` where it is to be tried again."""
        while True:
            ring = KeyRing.load(self._keys)
            if len(ring.ids) == 1:
                return
            try:
                count = await self._calls.rekey(ring)
            except KeysShared:
                if asked:
                    ring.without_new().save(self._keys)
                raise
            log.info("encrypted the requests of %d calls with the key %s", count, ring.primary)
            if KeyRing.load(self._keys).ids == ring.ids:  # else another one was made meanwhile
                ring.without_old().save(self._keys)
