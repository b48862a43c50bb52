"""Who may call a function that isn't public: by a bearer token that the cluster knows, or by a key.

A key is looked up by its hash in what the Function's status says, at once. A token is reviewed by the cluster's API
(TokenReview, then SubjectAccessReview of `create functions/invoke`); the answer is remembered for some seconds, so that only the first
call waits for it. Credentials are the gateway's and never reach a function; `X-Faaslite-Token` is there for callers whose `Authorization`
is meant for the function.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Callable
from time import monotonic, time

from core.api.kinds import SUBJECT_ACCESS_REVIEW, TOKEN_REVIEW
from core.client.rest import Client
from core.errors import ApiError
from faaslite.api.names import FUNCTION
from gateway.withdrawals import token_end
from gateway.worker.activator import Activator
from gateway.worker.call import Call
from gateway.worker.concurrency import Revision
from gateway.worker.errors import ACCESS_UNKNOWN, FORBIDDEN, QUOTA_EXCEEDED, UNAUTHORIZED, Failure
from gateway.worker.fields import RequestFields
from gateway.worker.router import Route, Router

__all__ = ["Access", "Denied"]

log = logging.getLogger(__name__)

REMEMBERED = 10.0
"""Seconds that an answer is used again. A token that is withdrawn by then is forgotten as soon as we hear of it (`forget`)."""
MOST_REMEMBERED = 4096
KEY_PREFIX = b"fk_"
_AUTHORIZATION = re.compile(rb"(?im)^authorization:[^\r\n]*\r\n")


class Denied(Exception):
    def __init__(self, failure: Failure, message: str) -> None:
        super().__init__(message)
        self.failure = failure
        self.message = message


class Access:
    """Decides, then hands calls to the activator (or to where else they are bound for)."""

    def __init__(self, client: Client, activator: Activator, router: Router) -> None:
        self._client = client
        self._activator = activator
        self._router = router
        self._answers: dict[tuple[bytes, str], tuple[float, Denied | None]] = {}
        self._asking: dict[tuple[bytes, str], asyncio.Task[Denied | None]] = {}
        self._running: set[asyncio.Task[Denied | None]] = set()
        self._forgotten = 0

    def forget(self) -> None:
        """Somebody lost a credential or a right, or was given one: ask again, of everybody. Answers under way aren't remembered."""
        self._forgotten += 1
        self._answers.clear()
        # What is asked anew must not get the answer of a question that was put before.
        self._asking.clear()

    def guard(
        self,
        route: Route,
        fields: RequestFields,
        forward: Callable[[Call], None] | None = None,
        *,
        trusted: bool = False,
    ) -> Callable[[Call, Revision | None], None]:
        """What admits one call of `route`, or refuses it. `forward` is for calls that the activator isn't to get; who is `trusted` needs no credential."""

        def enter(call: Call, revision: Revision | None) -> None:
            if route.cors is not None and fields.origin:
                call.extra = route.cors.fields(fields.origin)
                call.usual = False
            if forward is not None:
                forward(call)
            elif revision is not None:
                quota = route.quota
                if quota is not None:
                    refusal = quota.take(monotonic())
                    if refusal is not None:
                        call.revision = None  # nobody was asked for it
                        failure = Failure(QUOTA_EXCEEDED.status, QUOTA_EXCEEDED.reason, refusal.retry_after)
                        self._activator.reject(call, failure, refusal.message)
                        return
                    call.quota = quota
                call.revision = revision
                self._activator.admit(call, revision)

        def check(call: Call, revision: Revision | None) -> None:
            if trusted or route.visibility == "public":
                enter(call, revision)
                return
            call.revision = None  # it is on its way to nobody yet
            token = fields.token or fields.authorization
            key = fields.key
            if fields.token == b"" and token:
                call.head = _AUTHORIZATION.sub(b"", call.head, 1)
            scheme, _, bearer = token.partition(b" ")
            bearer = bearer.strip() if scheme.lower() == b"bearer" else b""
            if not key and bearer.startswith(KEY_PREFIX):
                key = bearer
            if key:
                denied = self.by_key(route, key, time())
                self._decide(call, revision, denied, enter)
            elif not bearer:
                what = "a key: X-Faaslite-Key, or a bearer token" if route.visibility == "key" else "a bearer token"
                self._decide(call, revision, Denied(UNAUTHORIZED, f"this function needs {what}"), enter)
            else:
                self._by_token(route, bearer, call, revision, enter)

        return check

    def by_key(self, route: Route, key: bytes, now: float) -> Denied | None:
        """None where it may. `now` in seconds since the epoch."""
        digest = hashlib.sha256(key).hexdigest()
        if route.visibility != "key":
            return Denied(UNAUTHORIZED, "this function needs a bearer token, not a key")
        expires = route.keys.get(digest)
        if expires is None:
            if self._router.knows_key(digest):
                return Denied(FORBIDDEN, "the key is not for this function")
            return Denied(UNAUTHORIZED, "the key is not valid")
        if expires and expires <= now:
            return Denied(UNAUTHORIZED, "the key has expired")
        return None

    def _decide(
        self,
        call: Call,
        revision: Revision | None,
        denied: Denied | None,
        enter: Callable[[Call, Revision | None], None],
    ) -> None:
        if call.done:
            return
        if denied is None:
            enter(call, revision)
        else:
            self._activator.reject(call, denied.failure, denied.message)

    def _by_token(
        self,
        route: Route,
        token: bytes,
        call: Call,
        revision: Revision | None,
        enter: Callable[[Call, Revision | None], None],
    ) -> None:
        place = (hashlib.sha256(token).digest(), route.key)
        known = self._answers.get(place)
        if known is not None and known[0] > monotonic():
            self._decide(call, revision, known[1], enter)
            return
        task = self._asking.get(place)
        if task is None:
            task = self._asking[place] = asyncio.get_running_loop().create_task(
                self._ask(place, token, route), name="token review"
            )
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        task.add_done_callback(
            lambda done: done.cancelled() or self._decide(call, revision, done.result(), enter)  # type: ignore[func-returns-value]
        )

    async def _ask(self, place: tuple[bytes, str], token: bytes, route: Route) -> Denied | None:
        before, text = self._forgotten, token.decode("latin-1")
        try:
            denied = await self._review(text, route)
        except ApiError as error:
            log.warning("a token can't be reviewed: %s", error)
            return Denied(ACCESS_UNKNOWN, "the cluster's API can't say who may call this function now")
        finally:
            if self._asking.get(place) is asyncio.current_task():
                del self._asking[place]
        if self._forgotten != before:
            return denied
        ends = token_end(text)
        left = REMEMBERED if ends is None or denied is not None else min(REMEMBERED, ends - time())
        while len(self._answers) >= MOST_REMEMBERED:
            del self._answers[next(iter(self._answers))]
        self._answers[place] = (monotonic() + left, denied)
        return denied

    async def _review(self, token: str, route: Route) -> Denied | None:
        review = {"apiVersion": TOKEN_REVIEW.api_version, "kind": TOKEN_REVIEW.kind, "spec": {"token": token}}
        status = (await self._client.create(TOKEN_REVIEW, review)).get("status") or {}
        user = status.get("user") or {}
        if not status.get("authenticated"):
            return Denied(UNAUTHORIZED, "the bearer token is not valid")
        asked = {
            "apiVersion": SUBJECT_ACCESS_REVIEW.api_version,
            "kind": SUBJECT_ACCESS_REVIEW.kind,
            "spec": {
                "user": user.get("username", ""),
                "groups": list(user.get("groups") or ()),
                "uid": user.get("uid", ""),
                "resourceAttributes": {
                    "verb": "create",
                    "group": FUNCTION.group,
                    "resource": FUNCTION.plural,
                    "subresource": "invoke",
                    "namespace": route.namespace,
                    "name": route.name,
                },
            },
        }
        status = (await self._client.create(SUBJECT_ACCESS_REVIEW, asked)).get("status") or {}
        if status.get("allowed"):
            return None
        return Denied(FORBIDDEN, f'"{user.get("username", "")}" may not create functions/invoke in "{route.namespace}"')

    async def stop(self) -> None:
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
