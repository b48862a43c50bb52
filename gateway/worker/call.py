"""One call on its way: what listener, activator and upstream know about it together."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.worker.concurrency import Instance, Revision
    from gateway.worker.listener import ClientConnection
    from gateway.worker.pool import Pool
    from gateway.worker.stats import FunctionStats
    from gateway.worker.upstream import UpstreamConnection

__all__ = ["Call"]


class Call:
    """Made by the listener. Waits while `instance` is None, is on its way to an instance while `connection` is None.

    `head` is what the instance gets. `body` holds what of the body has arrived and may have to be sent (again); None
    once that is no longer possible. `deadline` is in the loop's time.
    """

    __slots__ = (
        "attempts", "body", "body_size", "client", "connection", "deadline", "done", "expect", "head", "id", "instance", "method", "pool",
        "reply_begun", "revision", "started", "stats", "status", "upgrade", "waited",
    )  # fmt: skip

    def __init__(
        self,
        client: ClientConnection,
        method: bytes,
        head: bytes,
        call_id: bytes,
        revision: Revision | None,
        stats: FunctionStats | None,
        started: float,
        deadline: float,
    ) -> None:
        self.client = client
        self.method = method
        self.head = head
        self.id = call_id
        self.revision = revision
        self.stats = stats
        self.started = started
        self.deadline = deadline
        self.instance: Instance | None = None
        self.pool: Pool | None = None
        self.connection: UpstreamConnection | None = None
        self.body: list[bytes] | None = None
        self.body_size = 0
        self.expect = False
        """The client waits for `100 Continue` before it sends the body."""
        self.upgrade = False
        self.attempts = 0
        self.status = 0
        """Of the reply, once its head has come."""
        self.reply_begun = False
        """Whether the client has got any of the final reply: from then on there is no other one."""
        self.waited = -1.0
        """Seconds for which it waited for an instance; -1 where it didn't."""
        self.done = False

    @property
    def idempotent(self) -> bool:
        """Whether sending it twice does what sending it once does (RFC 9110, 9.2.2)."""
        return self.method in _IDEMPOTENT

    @property
    def replayable(self) -> bool:
        """Whether another instance can still get all of it."""
        return not self.reply_begun and (self.body is not None or not self.body_size)


_IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"))
