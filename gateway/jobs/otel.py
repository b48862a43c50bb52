"""OpenTelemetry: a span for each call and one below it for each try.

Launch makes a `Telemetry` only where an endpoint is set, so that nobody else pays for its imports and its thread.
"""

from __future__ import annotations

import secrets

from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.trace import SpanKind

from gateway.jobs.calls.base import FAILED, SUCCEEDED, Claimed, Try
from gateway.jobs.calls.trace import Context, Span, context_of, root_span
from gateway.otel import Spans

__all__ = ["Telemetry"]


class Telemetry:
    """`Tracing` that exports. `shutdown` sends what waits and ends the exporter's thread (it blocks: not on the event loop)."""

    def __init__(self, exporter: SpanExporter | None = None) -> None:
        self._spans = Spans("faaslite-jobs", exporter)

    def begin(self, call: Claimed, now: float) -> Span:
        return _Execution(self, call, context_of(call.id, call.options))

    def flush(self) -> None:
        self._spans.flush()

    def shutdown(self) -> None:
        self._spans.shutdown()

    def record(
        self, context: Context, span: str, parent: str, name: str, kind: SpanKind, began: float, ended: float, error: str,
        attributes: dict[str, str | int | float],
    ) -> None:  # fmt: skip
        """A span with these ids, from `began` to `ended` (seconds since the epoch)."""
        if context.sampled:
            self._spans.record((context.trace, span, parent), name, kind, began, ended, error, attributes)


class _Execution:
    def __init__(self, telemetry: Telemetry, call: Claimed, context: Context) -> None:
        self._telemetry = telemetry
        self._call = call
        self._context = context
        self._id = secrets.token_hex(8)

    @property
    def traceparent(self) -> str:
        return self._context.traceparent(self._id)

    def end(self, this: Try, status: str) -> None:
        call = self._call
        name = f"{call.function}.{call.namespace}"
        root = root_span(call.id)
        about: dict[str, str | int | float] = {
            "faas.invoked_name": call.function,
            "faas.trigger": "timer" if call.cron else "other",
            "k8s.namespace.name": call.namespace,
            "faaslite.call.id": call.id,
        }
        tried: dict[str, str | int | float] = {**about, "http.request.resend_count": call.attempts + call.refusals - 1}
        if this.http_status:
            tried["http.response.status_code"] = this.http_status
        if this.cold_start is not None:
            tried["faas.coldstart_seconds"] = this.cold_start
        ended = this.ended if this.ended is not None else this.began
        record = self._telemetry.record
        record(self._context, self._id, root, f"try {name}", SpanKind.CLIENT, this.began, ended, this.error, tried)
        if status:
            error = "" if status == SUCCEEDED else this.error or FAILED
            about |= {"faaslite.call.status": status, "faaslite.call.attempts": call.attempts}
            began = call.scheduled_at or call.accepted_at
            record(
                self._context, root, self._context.parent, f"call {name}", SpanKind.CONSUMER, began, ended, error, about
            )
