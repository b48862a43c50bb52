"""What becomes of a request to queue a call, whichever way it came: checked by the function's rules, recorded with others, answered.

It is a call like one under `/function/`, not administration: it needs no token of the platform. The caller's
`Authorization` header is the function's and is kept with the call.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence

from core.client.informer import Informer
from faaslite.api.names import HEADER_REVISION
from gateway.handover import Accept, Answer
from gateway.jobs.calls.base import ASYNC, Calls, CallsError, Inserted, KeyReused, NewCall, Options, Request
from gateway.jobs.calls.batch import Batch, Done
from gateway.jobs.calls.callbacks import check_url
from gateway.jobs.calls.trace import parse
from gateway.jobs.functions import FunctionView, Queueing, queueing

__all__ = ["Accepting", "Refused"]

log = logging.getLogger(__name__)

LONGEST_KEY = 255
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_REVISION = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class Refused(Exception):
    """Why a request isn't taken, as the answer says it."""

    def __init__(self, status: int, reason: str, message: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(message)
        self.status, self.reason, self.message, self.headers = status, reason, message, headers


class Accepting:
    """`insert` records calls (and may begin them), `clock` gives seconds since the epoch."""

    def __init__(
        self,
        functions: Informer[FunctionView],
        calls: Calls,
        insert: Callable[[Sequence[NewCall]], Awaitable[list[Inserted]]],
        clock: Callable[[], float],
    ) -> None:
        self._functions = functions
        self._calls = calls
        self._batch = Batch(insert)
        self._clock = clock
        self._rules: dict[str, tuple[FunctionView, Queueing]] = {}
        self._looking: set[asyncio.Task[None]] = set()
        self.accepted = 0
        self.refused = 0

    async def stop(self) -> None:
        """What was handed to the queue is answered first."""
        await self._batch.stop()
        if self._looking:
            await asyncio.wait(self._looking)

    async def ready(self) -> None:
        """Returns once it is known which functions there are."""
        if not self._functions.synced:
            await self._functions.wait_synced()

    @property
    def is_ready(self) -> bool:
        return self._functions.synced

    def find(self, namespace: str, name: str) -> Queueing:
        """The rules of that function. Raises `Refused` where there is none."""
        function = self._functions.get(f"{namespace}/{name}")
        if function is None or function.metadata.deletion_timestamp:
            raise Refused(404, "FunctionNotFound", f'there is no function "{name}" in the namespace "{namespace}"')
        found = self._rules.get(function.key)
        if found is None or found[0] is not function:
            if len(self._rules) > 10_000:
                self._rules.clear()
            found = self._rules[function.key] = (function, queueing(function))
        return found[1]

    def add(self, accepts: Iterable[Accept], tell: Callable[[Answer], None]) -> None:
        """Record all of these, in one go with what else comes; `tell` is called for each, now or once it is durable."""
        group: list[tuple[NewCall, Done]] = []
        for accept in accepts:
            try:
                call = self._call(accept)
            except Refused as why:
                self.refused += 1
                tell(Answer(accept.number, why.status, "", False, why.reason, why.message))
            except Exception as error:  # a worker would hand it over again and again
                log.exception("a call to queue was not understood")
                tell(_failure(accept.number, error))
            else:
                group.append((call, self._teller(accept.number, call, tell)))
        self._batch.add(group)

    async def accept(self, accept: Accept) -> Answer:
        """As `add` of one."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.add([accept], lambda found: None if answer.done() else answer.set_result(found))
        return await answer

    def _teller(self, number: int, call: NewCall, tell: Callable[[Answer], None]) -> Done:
        def done(found: Inserted | Exception) -> None:
            if isinstance(found, Exception):
                self.refused += 1
                tell(_failure(number, found))
            elif found.status or found.id != call.id:
                self.accepted += 1
                tell(Answer(number, 202, found.id, not found.status))
            else:
                task = asyncio.get_running_loop().create_task(self._repeated(number, call, tell))
                self._looking.add(task)
                task.add_done_callback(self._looking.discard)

        return done

    async def _repeated(self, number: int, call: NewCall, tell: Callable[[Answer], None]) -> None:
        """A caller that had no answer sends again: the same id for the same function is the same call."""
        try:
            known = await self._calls.get(call.id)
        except CallsError as error:
            tell(_failure(number, error))
            return
        if known is not None and (known.namespace, known.function) == (call.namespace, call.function):
            self.accepted += 1
            tell(Answer(number, 202, call.id, True))
        else:
            self.refused += 1
            tell(Answer(number, 400, "", False, "BadRequest", f"the call id {call.id} is in use"))

    def _call(self, accept: Accept) -> NewCall:
        rules = self.find(accept.namespace, accept.function)
        request = Request("POST", accept.path, accept.query, accept.headers, accept.body)
        return NewCall(
            id=accept.id if _ID.fullmatch(accept.id) else uuid.uuid4().hex,
            namespace=accept.namespace,
            function=accept.function,
            trigger=ASYNC,
            accepted_at=self._clock(),
            request=request,
            retries=rules.retries,
            max_age=rules.max_age,
            options=_options(accept, rules),
            fingerprint=_fingerprint(request) if accept.key else "",
        )


def _failure(number: int, error: Exception) -> Answer:
    if isinstance(error, KeyReused):
        return Answer(number, 422, "", False, "IdempotencyKeyReused", str(error))
    if isinstance(error, CallsError):
        return Answer(number, 503, "", False, "QueueUnavailable", str(error))
    return Answer(number, 500, "", False, "InternalError", "jobs failed on this request; its log says why")


def _options(accept: Accept, rules: Queueing) -> Options:
    if accept.callback:
        try:
            check_url(accept.callback)
        except ValueError as error:
            raise Refused(400, "BadRequest", f"X-Callback-Url: {error}") from None
    if len(accept.key) > LONGEST_KEY:
        raise Refused(400, "BadRequest", f"an Idempotency-Key may have {LONGEST_KEY} characters at most")
    if accept.revision and not _REVISION.fullmatch(accept.revision):
        raise Refused(400, "BadRequest", f'{HEADER_REVISION}: "{accept.revision}" is not a name of a revision')
    return Options(
        callback=accept.callback,
        dead_letter=rules.dead_letter,
        revision=accept.revision,
        traceparent=accept.traceparent if parse(accept.traceparent) else "",
        key=accept.key,
    )


def _fingerprint(request: Request) -> str:
    """Of what makes two requests the same; headers differ from try to try."""
    seen = hashlib.blake2b(digest_size=16)
    for part in (request.method.encode(), request.path.encode(), request.query.encode(), request.body):
        seen.update(len(part).to_bytes(8, "big") + part)
    return seen.hexdigest()
