"""One call on its way: what listener, activator and upstream know about it together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from gateway.worker.concurrency import Instance, Revision
    from gateway.worker.listener import ClientConnection
    from gateway.worker.pool import Pool
    from gateway.worker.quotas import Quota
    from gateway.worker.stats import FunctionStats
    from gateway.worker.upstream import UpstreamConnection
else:  # the struct's fields need no more than a name; these modules import this one
    Instance = Revision = ClientConnection = Pool = Quota = FunctionStats = UpstreamConnection = Any

__all__ = ["LARGE", "Call"]

LARGE = 4096
"""From this many bytes on data is passed on as it is, since a copy costs more than a further piece to write."""


class Call(msgspec.Struct, eq=False):
    """Made by the listener. Waits while `instance` is None, is on its way to an instance while `connection` is None.

    `head` is what the instance gets. `body` holds what of the body has arrived and may have to be sent (again); None
    once that is no longer possible. `deadline` is in the loop's time. A struct, since one is made for every request: it costs half of what
    a class costs.
    """

    client: ClientConnection
    method: bytes
    idempotent: bool
    """Whether sending it twice does what sending it once does (RFC 9110, 9.2.2)."""
    head: bytes
    id: bytes
    revision: Revision | None
    stats: FunctionStats | None
    started: float
    deadline: float
    usual: bool = False
    """A reply of the usual kind can go out the short way: all of the request is here, and the gateway adds nothing but the call's id."""
    instance: Instance | None = None
    pool: Pool | None = None
    """Where it may wait for a connection: of the instance, or of jobs."""
    connection: UpstreamConnection | None = None
    body: list[bytes] | None = None
    body_size: int = 0
    sent: int = 0
    """How much of the reply's body the client was sent, in bytes."""
    expect: bool = False
    """The client waits for `100 Continue` before it sends the body."""
    upgrade: bool = False
    attempts: int = 0
    """How often it was sent (or should have been) and came back."""
    status: int = 0
    """Of the reply, once its head has come."""
    reply_begun: bool = False
    """Whether the client has got any of the final reply: from then on there is no other one."""
    waited: float = -1.0
    """Seconds for which it waited for an instance; -1 where it didn't."""
    done: bool = False
    quota: Quota | None = None
    """Has let it begin, and is told when it ends."""
    extra: bytes = b""
    """Fields that the gateway adds to the reply, each with its line end."""

    @property
    def replayable(self) -> bool:
        """Whether another instance can still get all of it."""
        return not self.reply_begun and (self.body is not None or not self.body_size)
