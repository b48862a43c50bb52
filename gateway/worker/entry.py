"""Requests that aren't the plain call of a public function: parts of functions, hosts, routes, what isn't public, and the platform's own paths."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from gateway.worker import errors
from gateway.worker.call import Call
from gateway.worker.fields import RequestFields
from gateway.worker.http1 import RequestLine
from gateway.worker.router import Place, Route

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.worker.listener import ClientConnection

__all__ = ["enter"]


def enter(
    connection: ClientConnection, line: RequestLine, fields: RequestFields, body: bytes | None, route: Route | None
) -> None:
    """All that is not the plain call of a public function with one revision."""
    gateway = connection.gateway
    start = line.start
    if route is None:
        found = gateway.router.find(line, fields.host)
        if isinstance(found, Place):
            _platform(connection, found, line, fields, body)
            return
        if found is None:
            name = line.name if line.name is not None else fields.host
            message = f"there is no function {name.decode('ascii', 'replace')!r}"
            connection.answer(errors.FUNCTION_NOT_FOUND, message, fields.call_id)
            return
        route, target = found
        if target is not None:
            start = b"%s %s HTTP/1.1\r\n" % (line.method, target)
    if route.visibility == "cluster" and not connection.trusted:
        connection.answer(errors.FUNCTION_NOT_FOUND, "the function is for callers inside the cluster", fields.call_id)
        return
    if route.cors is not None and fields.origin:
        preflight = route.cors.preflight(line.method, fields)
        if preflight is not None:
            connection.answer_empty(preflight)
            return
    if fields.revision:
        named = fields.revision.decode("ascii", "replace")
        revision = route.by_name.get(named)
        if revision is None:
            connection.answer(errors.FUNCTION_NOT_FOUND, f"there is no revision {named!r}", fields.call_id)
            return
    else:
        revision = route.single or route.choose(gateway.random)
    if revision is None:
        connection.answer(errors.FUNCTION_NOT_READY, route.message, fields.call_id)
        return
    # Who comes by our own socket was let in before, but not by the quota: that is for calls when they are made.
    guarded = route.guarded and (not connection.trusted or route.quota is not None)
    guard = gateway.access.guard(route, fields, trusted=connection.trusted) if guarded else None
    connection.call_function(start, line, fields, body, route, revision, guard)


def _platform(
    connection: ClientConnection, place: Place, line: RequestLine, fields: RequestFields, body: bytes | None
) -> None:
    """A request that isn't a call of a function."""
    gateway = connection.gateway
    if place is Place.JOBS:
        call_id = fields.call_id or gateway.new_id()
        revision = b"X-Faaslite-Revision: %s\r\n" % fields.revision if fields.revision else b""
        head = b"%s%s%sX-Call-Id: %s\r\n\r\n" % (line.start, fields.forward, revision, call_id)
        now = monotonic()
        deadline = now + gateway.settings.jobs_timeout
        call = Call(connection, line.method, line.idempotent, head, call_id, None, None, now, deadline)
        call.pool = gateway.jobs
        connection.call_jobs(call, fields, body)
        route = gateway.router.async_route(line)
        send: Callable[[Call], None] = gateway.jobs.send
        if route is not None:
            send = gateway.handover.sender(route, line, fields) or send
        if route is not None and route.visibility != "public" and not connection.trusted:
            gateway.access.guard(route, fields, forward=send)(call, None)
        else:
            send(call)
    elif place is Place.FREED and connection.trusted:
        gateway.later(_answer_freed(connection, line.path.partition(b"?")[2].decode("ascii")))
    elif place is Place.HEALTH:
        connection.answer_text(
            b"200 OK" if gateway.healthy else b"503 Service Unavailable",
            b"ok\n" if gateway.healthy else b"draining\n",
        )
    elif place is Place.METRICS:
        if connection.trusted:
            connection.answer_text(b"200 OK", gateway.render_metrics().encode("utf-8"))
        else:
            gateway.later(_answer_metrics(connection))
    else:
        connection.answer(errors.NOT_FOUND, "functions are at /function/NAME", fields.call_id)


async def _answer_freed(connection: ClientConnection, instance: str) -> None:
    """A sibling waits for a slot that a call of ours has."""
    freed = await connection.gateway.watch(instance)
    if not connection.transport.is_closing():
        connection.answer_text(b"200 OK" if freed else b"404 Not Found", b"")


async def _answer_metrics(connection: ClientConnection) -> None:
    text = await connection.gateway.all_metrics()
    if not connection.transport.is_closing():
        connection.answer_text(b"200 OK", text.encode("utf-8"))
