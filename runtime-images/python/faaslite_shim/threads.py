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
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = threading.Semaphore(0)

    def submit(self, job: Callable[[], None]) -> None:
        """Run `job`, which raises nothing, on a thread; it waits where all are busy."""
        if not self._idle.acquire(blocking=False) and len(self._threads) < self._limit:
            self._start()
        self._jobs.put(job)

    def spare(self) -> None:
        """Have a thread for the first job before it comes: to start one takes longer than many a handler runs."""
        if not self._threads:
            self._start()
            self._idle.release()

    def close(self) -> None:
        """End all threads, of which none has anything to do; they have ended when this returns."""
        for _ in self._threads:
            self._jobs.put(None)
        for each in self._threads:
            each.join()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name=f"handler-{len(self._threads) + 1}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job
            self._idle.release()
