"""Calls: admission, deadline, the handler's run on a thread or as a task, and the reply or the error that it comes to."""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from .http import Exchange
from .logs import CallLog, current, said, write_traceback
from .reply import InvalidResponse, Reply, failure, to_reply
from .request import Context, Event
from .settings import Settings
from .threads import Threads, interrupt

__all__ = ["Calls"]

UNLIMITED_THREADS = 64
IDLE_SECONDS = 1.0
OVERDUE_SECONDS = 1.0
"""What a handler on a thread gets to end once it was interrupted at its deadline."""
EXIT_STUCK = 75
_NO_CONTENT = Reply(204, [])
_END = object()


class Calls:
    """The application behind the connections: runs one handler.

    `asgi` is what ASGI applications are run by (`AsgiRunner.run`), None for plain handlers; `describe` makes the reply to
    `/_/openapi.json`.
    """

    def __init__(
        self, settings: Settings, handler: Any, asgi: Any = None, describe: Callable[[], Reply] | None = None
    ) -> None:
        self._describe = describe
        self.max_body = settings.max_body or 1 << 62
        self.draining = False
        self.websockets = asgi is not None
        self.in_flight = 0
        self._settings = settings
        self._asgi = asgi
        self._loop = asyncio.get_running_loop()
        self._threads = Threads(settings.concurrency or UNLIMITED_THREADS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._lock = threading.Lock()
        self._running: dict[Exchange, int] = {}  # calls on a thread, with its number; guarded by the lock
        self._idle: Callable[[], None] | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        if asgi is None:
            self._call = _adapt(handler)
            self._is_async = inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
                getattr(handler, "__call__", None)  # noqa: B004
            )
        else:
            self._is_async = True

    def get_ready(self) -> None:
        """What the first call would wait for otherwise."""
        if not self._is_async:
            self._threads.spare()

    def close(self) -> None:
        """End the threads. No call is in flight."""
        self._threads.close()

    # Admission

    def admit(self, exchange: Exchange) -> bool:
        """Take the call or refuse it; the platform's own paths are answered here."""
        target = exchange.target
        if target.startswith(b"/_/"):
            path = target.partition(b"?")[0]
            if path in (b"/_/ready", b"/_/live"):
                exchange.send(_NO_CONTENT)
                return False
            if path == b"/_/openapi.json" and self._describe is not None:
                exchange.send(self._described())
                return False
        wanted = None
        for name, value in exchange.headers:
            if name == b"x-call-id":
                exchange.call_id = value.decode("latin-1")
            elif name == b"x-faaslite-deadline":
                wanted = value
        limit = self._settings.concurrency
        if limit and self.in_flight >= limit:
            message = f"this instance has {limit} calls in flight already"
            exchange.send(failure(503, "Busy", message, exchange.call_id, busy=True))
            return False
        self.in_flight += 1
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        if wanted is not None or self._settings.timeout:
            exchange.deadline = self._deadline(wanted)
        return True

    def _described(self) -> Reply:
        assert self._describe is not None
        try:
            return self._describe()
        except Exception as error:  # what an application's own description raises
            write_traceback("", error)
            return failure(500, "HandlerError", f"the function can't be described: {said(error)}", "")

    def _deadline(self, wanted: bytes | None) -> float | None:
        own = time.time() + self._settings.timeout if self._settings.timeout else None
        try:
            given = float(wanted) if wanted is not None else None
        except ValueError:
            given = None
        return min(given, own) if given is not None and own is not None else given if own is None else own

    def release(self, exchange: Exchange) -> None:
        """The call is over and its slot is free."""
        if not exchange.admitted:
            return
        exchange.admitted = False
        self.in_flight -= 1
        if self.draining and not self.in_flight:
            self._watch_idle()

    def drain(self, idle: Callable[[], None]) -> None:
        """From now on replies close their connections; `idle` is called once there was no call for a second."""
        self.draining = True
        self._idle = idle
        if not self.in_flight:
            self._watch_idle()

    def _watch_idle(self) -> None:
        assert self._idle is not None
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._idle_timer = self._loop.call_later(IDLE_SECONDS, self._idle)

    # Running

    def dispatch(self, exchange: Exchange) -> None:
        """Start the handler."""
        if not exchange.call_id:
            exchange.call_id = os.urandom(12).hex()
        timer = None
        if exchange.deadline is not None:
            left = exchange.deadline - time.time()
            if left <= 0:
                self._late(exchange)
                self.release(exchange)
                return
            timer = exchange.timer = self._loop.call_later(left, self._expire, exchange)
        if self._is_async:
            self._start_task(exchange, self._run_task(exchange, timer))
            return

        def job() -> None:
            log = CallLog(exchange.call_id, exchange)
            current.set(log)
            try:
                with self._lock:
                    self._running[exchange] = threading.get_ident()
                try:
                    outcome = self._call(self._event(exchange), self._context(exchange))
                    if not inspect.isawaitable(outcome):
                        outcome = to_reply(outcome)
                finally:
                    with self._lock:  # from here on nothing is raised in this thread any more
                        self._running.pop(exchange, None)
            except BaseException as error:
                outcome = error
            log.close()
            current.set(None)
            self._loop.call_soon_threadsafe(self._ran, exchange, timer, outcome)

        self._threads.submit(job)

    def _ran(self, exchange: Exchange, timer: asyncio.TimerHandle | None, outcome: Any) -> None:
        if isinstance(outcome, Reply) and outcome.stream is None:
            if timer is not None:
                timer.cancel()
            exchange.send(outcome)
            self.release(exchange)
        elif isinstance(outcome, BaseException):
            if timer is not None:
                timer.cancel()
            self._fail(exchange, outcome)
            self.release(exchange)
        else:
            self._start_task(exchange, self._run_task(exchange, timer, outcome))

    def _start_task(self, exchange: Exchange, coroutine: Any) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        exchange.call = task
        exchange.on_disconnect = task.cancel

    async def _run_task(self, exchange: Exchange, timer: asyncio.TimerHandle | None, outcome: Any = None) -> None:
        log = CallLog(exchange.call_id, exchange)
        current.set(log)
        try:
            if self._asgi is not None:
                await self._asgi(exchange)
            else:
                if outcome is None:
                    outcome = self._call(self._event(exchange), self._context(exchange))
                if inspect.isawaitable(outcome):
                    outcome = await outcome
                reply = outcome if isinstance(outcome, Reply) else to_reply(outcome)
                if reply.stream is None:
                    exchange.send(reply)
                else:
                    await self._stream(exchange, reply)
        except asyncio.CancelledError:
            # Cancelled by the deadline or by the client's going away; both were dealt with where they happened.
            if not exchange.finished:
                self._late(exchange)
        except BaseException as error:
            self._fail(exchange, error)
        finally:
            if timer is not None:
                timer.cancel()
            exchange.on_disconnect = None
            log.close()
            self.release(exchange)

    async def _stream(self, exchange: Exchange, reply: Reply) -> None:
        """Send what a generator yields. The status waits for the first part, so that an early failure is a proper error."""
        stream = reply.stream
        step = stream.__anext__ if inspect.isasyncgen(stream) else lambda: self._step(exchange, stream)
        try:
            part = await _next_part(step)
            data = b"" if part is _END else _encode(part)
            exchange.start(reply.status, reply.headers)
            while part is not _END:
                await exchange.write(data)
                if (part := await _next_part(step)) is not _END:
                    data = _encode(part)
            exchange.finish()
        finally:
            if inspect.isasyncgen(stream):
                await stream.aclose()

    def _step(self, exchange: Exchange, generator: Any) -> asyncio.Future[Any]:
        future = self._loop.create_future()

        def settle(value: Any, error: BaseException | None) -> None:
            if future.cancelled():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(value)

        def job() -> None:
            log = CallLog(exchange.call_id, exchange)
            current.set(log)
            value, problem = _END, None
            try:
                value = next(generator, _END)
            except BaseException as error:
                problem = error
            log.close()
            self._loop.call_soon_threadsafe(settle, value, problem)

        self._threads.submit(job)
        return future

    def _event(self, exchange: Exchange) -> Event:
        return Event(exchange.method, exchange.target, exchange.headers, exchange.body)

    def _context(self, exchange: Exchange) -> Context:
        return Context(self._settings, exchange.call_id, exchange.deadline)

    # Failures

    def _expire(self, exchange: Exchange) -> None:
        self._late(exchange)
        if exchange.call is not None:
            exchange.call.cancel()
        with self._lock:
            thread = self._running.get(exchange)
            if thread is not None:
                interrupt(thread)
        if thread is not None:
            self._loop.call_later(OVERDUE_SECONDS, self._give_up)

    def _give_up(self) -> None:
        """End an instance that can serve nobody: calls past their deadline hold all of its slots, and can't be interrupted."""
        latest = time.time() - OVERDUE_SECONDS / 2
        with self._lock:
            stuck = sum(1 for each in self._running if each.deadline is not None and each.deadline < latest)
        if stuck >= (self._settings.concurrency or UNLIMITED_THREADS):
            sys.stderr.write(f"the instance ends: {stuck} calls went on past their deadline, and it takes no more\n")
            sys.stderr.flush()
            os._exit(EXIT_STUCK)

    def _late(self, exchange: Exchange) -> None:
        if exchange.started:
            exchange.finish(broken=True)
        else:
            exchange.send(
                failure(504, "DeadlineExceeded", "the call's deadline passed before it was answered", exchange.call_id)
            )

    def _fail(self, exchange: Exchange, error: BaseException) -> None:
        if exchange.started or not isinstance(error, InvalidResponse):  # who gets half a reply is told nothing
            write_traceback(exchange.call_id, error)
        if exchange.started:
            exchange.finish(broken=True)
        elif isinstance(error, InvalidResponse):
            exchange.send(failure(500, "InvalidResponse", str(error), exchange.call_id))
        else:
            exchange.send(failure(500, "HandlerError", said(error), exchange.call_id))


async def _next_part(step: Callable[[], Any]) -> Any:
    try:
        return await step()
    except StopAsyncIteration:
        return _END


def _encode(part: Any) -> bytes:
    if isinstance(part, str):
        return part.encode("utf-8", "surrogatepass")
    if isinstance(part, (bytes, bytearray, memoryview)):
        return bytes(part)
    raise InvalidResponse(f"the handler yielded a {type(part).__name__}; parts are str or bytes")


def _adapt(handler: Any) -> Callable[[Event, Context], Any]:
    """Handlers may take less than (event, context)."""
    code = getattr(handler, "__code__", None) if inspect.isfunction(handler) and not handler.__dict__ else None
    if code is not None and code.co_argcount >= 2:
        return handler  # type: ignore[no-any-return]
    try:
        parameters = list(inspect.signature(handler).parameters.values())
    except (TypeError, ValueError):
        return handler  # type: ignore[no-any-return]
    if any(each.kind is each.VAR_POSITIONAL for each in parameters):
        return handler  # type: ignore[no-any-return]
    positional = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    if len(positional) >= 2:
        return handler  # type: ignore[no-any-return]
    return (lambda event, _: handler(event)) if positional else (lambda _event, _context: handler())
