"""An alarm at a time of the wall clock, by the kernel's `timerfd`: it rings in time after a suspend, and at once when the clock is set.

A timer of the event loop counts monotonic seconds: it would be late by as long as the machine slept, and wrong by as much as the clock was
set. `TFD_TIMER_CANCEL_ON_SET` (timerfd_create(2)) makes the read fail with ECANCELED where the clock jumped.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import logging
import os
from collections.abc import Callable

__all__ = ["Alarm"]

log = logging.getLogger(__name__)

_CLOCK_REALTIME = 0
_TFD_TIMER_ABSTIME = 1
_TFD_TIMER_CANCEL_ON_SET = 2
_FAR = 1 << 33
"""Seconds since the epoch, some centuries ahead: an alarm that only waits for the clock to be set."""


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


_libc = ctypes.CDLL(None, use_errno=True)


class Alarm:
    """`ring` is called on the event loop, at the time that was set or when the clock was set; early is possible, late is not."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._descriptor = _libc.timerfd_create(_CLOCK_REALTIME, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        self._loop.add_reader(self._descriptor, self._readable)

    def set(self, at: float | None) -> None:
        """Ring at `at` (seconds since the epoch; a time that has passed rings at once), with None only when the clock is set."""
        nanoseconds = max(int((_FAR if at is None else at) * 1e9), 1)
        value = _TimerSpec(_TimeSpec(0, 0), _TimeSpec(*divmod(nanoseconds, 1_000_000_000)))
        flags = _TFD_TIMER_ABSTIME | _TFD_TIMER_CANCEL_ON_SET
        if _libc.timerfd_settime(self._descriptor, flags, ctypes.byref(value), None) < 0:
            number = ctypes.get_errno()
            if number != errno.ECANCELED:
                raise OSError(number, os.strerror(number))
            self._loop.call_soon(self._ring)  # the clock was set since: it is armed, and all is to be looked at anew

    def close(self) -> None:
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _readable(self) -> None:
        try:
            os.read(self._descriptor, 8)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ECANCELED:
                raise
            log.info("the clock was set: cron looks at all of its triggers again")
        self._ring()
