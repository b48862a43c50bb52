"""The API server's edge for HTTP (ASGI): the walk of one request.

    read the head -> authenticate -> read the body -> wait for a turn -> authorise and do (`answer`) -> durable -> reply, or stream

On the way it leaves a trail for the audit log, is counted, and has a deadline unless it is long by nature.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from core.api.kinds import POD
from core.apiserver import dispatch, http
from core.apiserver.audit import Audit, Trail
from core.apiserver.authn import Authenticator, User, impersonation
from core.apiserver.authn.certificates import peer_certificate
from core.apiserver.authz import Authorizer
from core.apiserver.authz.node import NODES
from core.apiserver.deadlines import Deadline, Deadlines, expired
from core.apiserver.dispatch import RequestInfo
from core.apiserver.fanout import Fanout, Feed
from core.apiserver.flow.clients import Clients
from core.apiserver.flow.control import FlowControl, Turn
from core.apiserver.http import Receive, Scope, Send
from core.apiserver.metrics import Metrics, labels
from core.apiserver.presentation import presented
from core.apiserver.request import ApiRequest, Proxied, RawRequest, Reply, TextStream, Upgrade, WatchStream
from core.apiserver.resources import Answer, Resources
from core.apiserver.served import Served
from core.apiserver.status import from_store
from core.apiserver.streams.connect import Tunnel
from core.clock import monotonic
from core.errors import ApiError, InternalError, NotFound, Timeout
from core.serving import chunks_of, take_over, whole_of
from core.store.base import Store, StoreError

__all__ = ["Edge"]

log = logging.getLogger(__name__)


class _Answering(Protocol):
    def __call__(self, request: ApiRequest, *, applied: bool, trail: Trail) -> Awaitable[Answer]: ...


@dataclass(eq=False)
class Edge:
    """`answer` authorises and does what is asked; `system` serves what is no resource."""

    authenticator: Authenticator
    authorizer: Authorizer
    flow: FlowControl
    deadlines: Deadlines
    clients: Clients
    audit: Audit
    metrics: Metrics
    served: Served
    store: Store
    resources: Resources
    system: Any
    answer: _Answering
    fanout: Fanout = field(default_factory=Fanout)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} is not served")
        turn = Turn(self.flow)
        try:
            await self._request(scope, receive, send, turn)
        finally:
            turn.end()

    async def _request(self, scope: Scope, receive: Receive, send: Send, turn: Turn) -> None:
        began = monotonic()
        head = http.read_head(scope)
        method, path = scope["method"], scope["path"]
        info = dispatch.parse(method, path, head.query)
        deadline, request = None, None
        trail = self.audit.begin(scope, head, info)
        try:
            deadline = self.deadlines.begin(info, head.query, began)
            user = await self.authenticator.authenticate(head.authorization, peer_certificate(scope))
            trail.by(user)
            self.clients.seen(head.authorization, user.name)
            if head.impersonate:
                user = await self._impersonated(user, head.impersonate)
                trail.acting_as(user)
            body = await http.read_body(receive, turn.grow) if info.resource and method not in ("GET", "HEAD") else b""
            trail.body(body)
            place = self.flow.place(user, info)
            send = turn.labelled(place, send)
            await turn.take(place, user, info, head.query, scope)
            if not info.resource:
                trail.allowed(await self.authorizer.check(user, info))
                trail.done(await self._serve_system(scope, receive, send, info, deadline))
                return
            request = ApiRequest(user, info, head.query, body, head.content_type, head.accept, head.user_agent)
            trail.noted(request.annotations)
            if (take := take_over(scope)) is not None:
                request.upgrade = Upgrade(method, scope["query_string"].decode("latin-1"), scope["headers"], take)
            if info.subresource == "proxy":
                raw = scope.get("raw_path") or path.encode()
                request.raw = RawRequest(method, raw, scope["query_string"], scope["headers"])
            answer = await self.answer(request, applied=False, trail=trail)
            if isinstance(answer, Reply):
                if answer.revision:
                    await self.store.durable(answer.revision)
                trail.done(answer.code, answer.body)
                answer = presented(answer, head.accept, head.query, head.user_agent)
                await http.send_reply(
                    send, answer, request.warnings, head.gzip, bodiless=method == "HEAD", whole=whole_of(scope), fields=place.fields
                )  # fmt: skip
                self.metrics.answered(self._labels(info, head.query), answer.code, monotonic() - began)
                return
        except ConnectionError:
            return
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and (turn.answering or not expired(deadline)):
                raise
            failure = _as_api_error(error, method, path)
            self.metrics.answered(self._labels(info, head.query), failure.status_code, monotonic() - began)
            said = Reply(msgspec.json.encode(failure.status()))
            trail.done(failure.status_code, said.body)
            if isinstance(failure, NotFound) and self._unknown(info):
                await http.send_plain(send, 404, "404 page not found\n")
            else:
                said = presented(said, head.accept, head.query, head.user_agent)
                await http.send_error(send, failure, said, request.warnings if request is not None else ())
            return
        finally:
            self.deadlines.end(deadline)
        code = answer.status if isinstance(answer, Proxied) else 101 if isinstance(answer, Tunnel) else 200
        self.metrics.answered(self._labels(info, head.query), code, None)
        trail.started(code)
        try:
            await self._stream(answer, scope, receive, send, turn, user)
        finally:
            trail.done(code)

    def _labels(self, info: RequestInfo, query: Mapping[str, str]) -> tuple[str, ...]:
        known = self.served.find(info.group, info.version, info.resource) is not None
        return labels(info, known, query.get("dryRun") == "All")

    async def _impersonated(self, user: User, headers: Sequence[tuple[str, str]]) -> User:
        """The user that the headers ask for. Raises `Forbidden` for whom `user` may not be, `BadRequest`."""
        wanted = impersonation.requested(headers)
        if wanted is None:
            return user
        for each in impersonation.permissions(wanted):
            await self.authorizer.check(user, each)
        return wanted

    async def _serve_system(
        self, scope: Scope, receive: Receive, send: Send, info: RequestInfo, deadline: Deadline | None
    ) -> int:
        """The reply's code. Old clients ask for `/api/`, `/version/`. A reply that has begun may take as long as it is long."""
        code, path = 500, scope["path"]
        if len(path) > 1 and path.endswith("/"):
            scope = {**scope, "path": path.rstrip("/"), "raw_path": path.rstrip("/").encode()}

        async def counted(message: MutableMapping[str, Any]) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
                self.deadlines.end(deadline)
                self.metrics.answered(labels(info, False, False), code, None)
            await send(dict(message))

        await self.system(scope, receive, counted)
        return code

    async def _stream(
        self,
        answer: WatchStream | TextStream | Tunnel | Proxied,
        scope: Scope,
        receive: Receive,
        send: Send,
        turn: Turn,
        user: User,
    ) -> None:
        try:
            if isinstance(answer, Tunnel):
                await answer.run()
            elif isinstance(answer, WatchStream):
                answer.watcher.begun = turn.begun
                with self.resources.running(answer.watcher):
                    urgent = NODES in user.groups and answer.registry.kind == POD
                    feed = Feed(self.fanout, answer, chunks_of(scope), urgent)
                    await http.send_watch(receive, send, answer, feed)
            elif isinstance(answer, Proxied):
                await http.send_chunks(receive, send, answer.status, answer.headers, answer.chunks)
            else:
                await http.send_text(receive, send, answer)
        except ConnectionError:
            return

    def _unknown(self, info: RequestInfo) -> bool:
        return bool(info.resource) and not self.served.has_version(info.group, info.version)


def _as_api_error(error: BaseException, method: str, path: str) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, asyncio.CancelledError):
        return Timeout("request did not complete within the allotted timeout")
    if isinstance(error, StoreError):
        return from_store(error)
    log.error("%s %s failed", method, path, exc_info=error)
    return InternalError(f"Internal error occurred: {type(error).__name__}")


async def _lifespan(receive: Receive, send: Send) -> None:
    """Whoever serves the application starts and stops it; the protocol is only acknowledged."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
