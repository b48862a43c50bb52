"""Threads for handlers that block: started as they are needed, kept, at most `limit`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

__all__ = ["Overdue", "Threads", "interrupt"]


class Overdue(BaseException):
    """Raised in a handler that runs on a thread when its call's deadline has passed."""


def interrupt(thread: int) -> None:
    """Raise `Overdue` in a thread as soon as it runs Python code again: a loop ends, a call that blocks first has to return."""
    import ctypes

    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(Overdue))


class Threads:
    """`submit` is called from one thread (the event loop's). Threads are daemons: one that never ends doesn't hold up the exit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._count = 0
        self._idle = threading.Semaphore(0)

    def submit(self, job: Callable[[], None]) -> None:
        """Run `job`, which raises nothing, on a thread; it waits where all are busy."""
        if not self._idle.acquire(blocking=False) and self._count < self._limit:
            self._count += 1
            threading.Thread(target=self._run, name=f"handler-{self._count}", daemon=True).start()
        self._jobs.put(job)

    def _run(self) -> None:
        while True:
            self._jobs.get()()
            self._idle.release()
