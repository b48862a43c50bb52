"""A queue of keys: each waits at most once, is worked on by one worker at a time, and comes back later when it fails.

After k8s.io/client-go/util/workqueue. A key that is added while it is being worked on is queued again when that work is
done, so that the last change is always seen.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

__all__ = ["QueueClosed", "WorkQueue"]


class QueueClosed(Exception):
    """`get` on a queue that was closed: the worker may end."""


class WorkQueue:
    """Keys in order of arrival. Methods other than `get` are plain calls, made on the event loop.

    A key that fails for the n-th time in a row waits `base * 2**(n-1)` seconds, at most `cap`.
    """

    def __init__(self, *, base: float = 0.005, cap: float = 60.0) -> None:
        self._base, self._cap = base, cap
        self._ready: deque[str] = deque()
        self._queued: set[str] = set()
        self._working: set[str] = set()
        self._again: set[str] = set()
        self._later: dict[str, asyncio.TimerHandle] = {}
        self._failures: dict[str, int] = {}
        self._getters: deque[asyncio.Future[None]] = deque()
        self._closed = False

    def __len__(self) -> int:
        """Keys that wait for a worker."""
        return len(self._ready)

    def add(self, key: str) -> None:
        if self._closed or key in self._queued:
            return
        if key in self._working:
            self._again.add(key)
            return
        self._queued.add(key)
        self._ready.append(key)
        self._wake()

    def add_after(self, key: str, seconds: float) -> None:
        """Add the key in that time. Of several times the earliest holds."""
        if self._closed:
            return
        if seconds <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        pending = self._later.get(key)
        if pending is not None:
            if pending.when() <= loop.time() + seconds:
                return
            pending.cancel()
        self._later[key] = loop.call_later(seconds, self._due, key)

    def retry(self, key: str) -> float:
        """Add the key after its back-off, and say how long that is, in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(self._base * 2.0 ** min(failures, 40), self._cap)
        self.add_after(key, delay)
        return delay

    def forget(self, key: str) -> None:
        """The key succeeded: its next failure is its first."""
        self._failures.pop(key, None)

    def failures(self, key: str) -> int:
        """How often in a row the key failed."""
        return self._failures.get(key, 0)

    async def get(self) -> str:
        """The next key; `done` must be called when the work on it is over. Raises `QueueClosed`."""
        while not self._ready:
            if self._closed:
                raise QueueClosed
            getter = asyncio.get_running_loop().create_future()
            self._getters.append(getter)
            try:
                await getter
            except BaseException:
                if getter.cancelled():
                    with contextlib.suppress(ValueError):
                        self._getters.remove(getter)
                elif self._ready:
                    # Woken and cancelled in one step: the key must not wait for the next add.
                    self._wake()
                raise
        if self._closed:
            raise QueueClosed
        key = self._ready.popleft()
        self._queued.discard(key)
        self._working.add(key)
        return key

    def done(self, key: str) -> None:
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def close(self) -> None:
        """Wake every waiting `get` with `QueueClosed`; later adds are ignored."""
        self._closed = True
        for handle in self._later.values():
            handle.cancel()
        self._later.clear()
        self._again.clear()
        while self._getters:
            self._wake()

    def _due(self, key: str) -> None:
        del self._later[key]
        self.add(key)

    def _wake(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return
