"""Slots: which instance of a revision takes the next call, and who waits for one. No I/O."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.worker.stats import RevisionLoad

if TYPE_CHECKING:
    from gateway.worker.call import Call
    from gateway.worker.pool import Pool

__all__ = ["UNLIMITED", "Instance", "Revision"]

UNLIMITED = 1 << 30


class Instance:
    """One ready Pod. `in_flight` counts this worker's calls: a hint, the instance itself refuses what is too much."""

    __slots__ = ("aside", "busy", "gone", "identity", "in_flight", "key", "pool", "watchers")

    def __init__(self, key: str, pool: Pool, identity: str) -> None:
        self.key = key
        self.pool = pool
        self.identity = identity
        """Tells it from an earlier Pod of the same name, and from itself at another address."""
        self.in_flight = 0
        self.aside = False
        """Gets no calls for a moment: it refused one."""
        self.busy = False
        """It is aside because it is at its limit, so the end of any of its calls brings it back."""
        self.watchers: list[Callable[[], None]] = []
        """Other workers that found it at its limit: told when a call of ours ends. `busy` is set while there are any."""
        self.gone = False
        """Its Pod is deleted or not ready any more: its calls finish, it gets no others."""


class Revision:
    """The instances of one revision and the calls that wait for them, longest first.

    Invariant: while a call waits no instance has a free slot; so whoever frees a slot or adds an instance dispatches
    (`gateway.worker.activator`), and a new call may only take a slot where nobody waits.
    """

    __slots__ = (
        "asked",
        "function",
        "held",
        "instances",
        "key",
        "limit",
        "load",
        "namespace",
        "ready",
        "routed",
        "seen",
        "starting",
        "timeout",
        "told",
        "told_until",
        "waiting",
    )

    def __init__(self, key: str, namespace: str, function: str, now: float) -> None:
        self.key = key
        self.namespace = namespace
        self.function = function
        self.limit = UNLIMITED
        self.instances: dict[str, Instance] = {}
        self.ready: list[Instance] = []
        """The instances that may get calls."""
        self.starting: set[str] = set()
        """Keys of Pods that exist and aren't ready yet."""
        self.waiting: OrderedDict[Call, None] = OrderedDict()
        self.load = RevisionLoad(now)
        self.routed = False
        """Whether a function knows of it: by its traffic, or by its number."""
        self.timeout = 30.0
        """Seconds that a call may take."""
        self.told = b""
        """What instances are told of the deadline, with the end of the head."""
        self.told_until = 0.0
        self.held = self.seen = 0.0
        """When the first call of those that wait came and found no instance, and when a Pod was there for it (0: not yet)."""
        self.asked = 0
        """For how many waiting calls the autoscaler was asked."""

    def tell_deadline(self, now: float, wall_offset: float) -> None:
        """Say when a call that begins at `now` must have ended: to within 10 ms and never late, so that it need not be written anew for each
        of many calls. `wall_offset` is what makes seconds since the epoch of the clock of `now`."""
        stamp = int((now + self.timeout + wall_offset) * 100)
        self.told = b"%d.%02d0\r\n\r\n" % divmod(stamp, 100)
        self.told_until = (stamp + 1) / 100 - self.timeout - wall_offset

    def acquire(self) -> Instance | None:
        """A slot of the least loaded instance, if there is one; give it back with `release`."""
        lowest = self.limit
        best: Instance | None = None
        for instance in self.ready:
            load = instance.in_flight
            if load < lowest:
                if not load:
                    instance.in_flight = 1
                    return instance
                lowest = load
                best = instance
        if best is not None:
            best.in_flight += 1
        return best

    def hold(self, now: float) -> None:
        """A call is about to wait where there is no instance."""
        if not self.waiting:
            self.held = now
            self.seen = now if self.starting else 0.0

    def release(self, instance: Instance) -> None:
        instance.in_flight -= 1

    def add(self, instance: Instance) -> None:
        self.instances[instance.key] = instance
        self.ready.append(instance)

    def remove(self, key: str) -> Instance | None:
        """The instance gets no further calls."""
        instance = self.instances.pop(key, None)
        if instance is not None:
            instance.gone = True
            if not instance.aside:
                self.ready.remove(instance)
        return instance

    def set_aside(self, instance: Instance) -> bool:
        """No calls for it until `restore`; whether it was in use until now."""
        if instance.gone or instance.aside:
            return False
        instance.aside = True
        self.ready.remove(instance)
        return True

    def restore(self, instance: Instance) -> bool:
        """It may get calls again; whether that is news."""
        if instance.gone or not instance.aside:
            return False
        instance.aside = False
        instance.busy = bool(instance.watchers)
        self.ready.append(instance)
        return True

    def coming(self) -> int:
        """How many calls the instances that were asked for can take."""
        if self.limit == UNLIMITED:
            return self.asked * 2
        return -(-self.asked // self.limit) * self.limit

    @property
    def idle(self) -> bool:
        """Whether nothing is known of it any more, and it can be forgotten."""
        return not (self.routed or self.instances or self.starting or self.waiting or self.load.active)
