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

    # Most calls need few of these, so what isn't said is the class's.
    instance: Instance | None = None
    pool: Pool | None = None
    connection: UpstreamConnection | None = None
    body: list[bytes] | None = None
    body_size = 0
    expect = False
    """The client waits for `100 Continue` before it sends the body."""
    upgrade = False
    attempts = 0
    status = 0
    """Of the reply, once its head has come."""
    reply_begun = False
    """Whether the client has got any of the final reply: from then on there is no other one."""
    waited = -1.0
    """Seconds for which it waited for an instance; -1 where it didn't."""
    done = False
    extra = b""
    """Fields that the gateway adds to the reply, each with its line end."""

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

    @property
    def idempotent(self) -> bool:
        """Whether sending it twice does what sending it once does (RFC 9110, 9.2.2)."""
        return self.method in _IDEMPOTENT

    @property
    def replayable(self) -> bool:
        """Whether another instance can still get all of it."""
        return not self.reply_begun and (self.body is not None or not self.body_size)


_IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"))
