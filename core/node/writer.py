"""Writes of Pod status: never more than one in flight per Pod, the latest wins.

A write that matters to others (readiness, the end of a Pod) is sent at once; any other waits a moment, for on the way to
readiness it is overtaken, and the longer, the more Pods are on that way. What can't be delivered is tried again until it is outdated.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from core import trace
from core.api.kinds import POD
from core.api.meta import Document
from core.client.rest import Client
from core.errors import ApiError, Conflict, NotFound, ServiceUnavailable, Timeout, TooManyRequests

__all__ = ["StatusWriter"]

log = logging.getLogger(__name__)

DELAY = 0.05
DELAY_EACH = 0.05
"""And so many seconds more for each status that waits already: a crowd of Pods takes longer until it is ready."""
LONGEST_DELAY = 2.0
FIRST_RETRY, LONGEST_RETRY = 0.1, 5.0
_AGAIN = (ServiceUnavailable, Timeout, TooManyRequests)


@dataclass(slots=True)
class _Slot:
    name: str
    namespace: str
    uid: str
    pending: Document | None = None
    writing: Document | None = None
    sent: Document | None = None
    timer: asyncio.TimerHandle | None = None
    task: asyncio.Task[None] | None = None
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def latest(self) -> Document | None:
        """What the API has, once what is under way is done."""
        for each in (self.pending, self.writing):
            if each is not None:
                return each
        return self.sent


class StatusWriter:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._slots: dict[str, _Slot] = {}
        self._delayed = 0
        self.writes = 0

    def submit(self, namespace: str, name: str, uid: str, status: Document, *, urgent: bool) -> None:
        """Have that status written, unless it is what was written last."""
        slot = self._slots.get(uid)
        if slot is None:
            slot = self._slots[uid] = _Slot(name, namespace, uid)
            slot.idle.set()
        if status == slot.latest:
            if urgent and slot.timer is not None:
                self._send(slot)
            return
        slot.pending = status
        slot.idle.clear()
        if slot.task is not None:
            return
        if urgent:
            self._send(slot)
        elif slot.timer is None:
            delay = min(DELAY + DELAY_EACH * self._delayed, LONGEST_DELAY)
            slot.timer = asyncio.get_running_loop().call_later(delay, self._send, slot)
            self._delayed += 1

    async def flush(self, uid: str) -> None:
        """Return once nothing of that Pod waits or is in flight."""
        slot = self._slots.get(uid)
        if slot is None:
            return
        if slot.timer is not None:
            self._send(slot)
        await slot.idle.wait()

    async def finish(self, uid: str) -> None:
        """As `flush`, of a Pod whose object goes next: what only waits for its moment isn't sent any more."""
        slot = self._slots.get(uid)
        if slot is None:
            return
        if slot.timer is not None:
            self._undelay(slot)
            slot.pending = None
            slot.idle.set()
        await slot.idle.wait()

    def resend(self, uid: str) -> None:
        """The API has lost that Pod's status: the next `submit` writes though nothing changed."""
        slot = self._slots.get(uid)
        if slot is not None:
            slot.sent = None

    def forget(self, uid: str) -> None:
        slot = self._slots.pop(uid, None)
        if slot is not None:
            self._undelay(slot)
            if slot.task is not None:
                slot.task.cancel()
            slot.idle.set()

    async def close(self) -> None:
        """Give what is pending one last moment, then cancel it."""
        slots = list(self._slots.values())
        try:
            async with asyncio.timeout(1.0):
                await asyncio.gather(*(self.flush(each.uid) for each in slots))
        except TimeoutError:
            log.warning("some Pod statuses could not be written before the end")
        tasks = [each.task for each in slots if each.task is not None]
        for each in slots:
            self.forget(each.uid)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _undelay(self, slot: _Slot) -> None:
        if slot.timer is not None:
            slot.timer.cancel()
            slot.timer = None
            self._delayed -= 1

    def _send(self, slot: _Slot) -> None:
        self._undelay(slot)
        if slot.task is None and slot.pending is not None:
            slot.task = asyncio.get_running_loop().create_task(self._deliver(slot), name=f"status of {slot.name}")

    async def _deliver(self, slot: _Slot) -> None:
        retry = FIRST_RETRY
        try:
            while slot.pending is not None:
                status = slot.writing = slot.pending
                slot.pending = None
                try:
                    await self._write(slot, status)
                    slot.sent, retry = status, FIRST_RETRY
                except (NotFound, Conflict):
                    slot.sent = status  # that Pod is gone, or another has its name: nobody misses this status
                except _AGAIN as error:
                    log.debug("the status of %s/%s is tried again: %s", slot.namespace, slot.name, error.message)
                    slot.pending = slot.pending or status
                    await asyncio.sleep(retry)
                    retry = min(retry * 2, LONGEST_RETRY)
                except ApiError as error:
                    log.error("the status of %s/%s was refused: %s", slot.namespace, slot.name, error.message)
                    slot.sent = status
        finally:
            slot.task = slot.writing = None
            slot.idle.set()

    async def _write(self, slot: _Slot, status: Document) -> None:
        self.writes += 1
        body = {"metadata": {"uid": slot.uid}, "status": status}
        if trace.ON:
            trace.mark("posting", f"{slot.namespace}/{slot.name}")
        await self._client.patch(POD, slot.name, slot.namespace, body, subresource="status")
