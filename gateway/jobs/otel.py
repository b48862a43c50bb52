"""OpenTelemetry: a span for each call and one below it for each try, exported as OTLP over HTTP.

The exporter reads OpenTelemetry's own variables (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_HEADERS` ...); launch makes a `Telemetry` only
where an endpoint is set, so that nobody else pays for its imports and its thread.
"""

from __future__ import annotations

import secrets

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from gateway.jobs.calls.base import FAILED, SUCCEEDED, Claimed, Try
from gateway.jobs.calls.trace import Context, Span, context_of, root_span

__all__ = ["Telemetry"]


class _Ids(IdGenerator):
    """Hands out the ids that it was given: a span's id is sent to the function before the span is made."""

    def __init__(self) -> None:
        self.trace = self.span = 0

    def generate_trace_id(self) -> int:
        return self.trace

    def generate_span_id(self) -> int:
        return self.span


class Telemetry:
    """`Tracing` that exports. `shutdown` sends what waits and ends the exporter's thread (it blocks: not on the event loop)."""

    def __init__(self, exporter: SpanExporter | None = None) -> None:
        self._ids = _Ids()
        resource = Resource.create({"service.name": "faaslite-jobs"})
        self._provider = TracerProvider(resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("faaslite.jobs")

    def begin(self, call: Claimed, now: float) -> Span:
        return _Execution(self, call, context_of(call.id, call.options))

    def flush(self) -> None:
        self._provider.force_flush()

    def shutdown(self) -> None:
        self._provider.shutdown()

    def record(
        self, context: Context, span: str, parent: str, name: str, kind: SpanKind, began: float, ended: float, error: str,
        attributes: dict[str, str | int | float],
    ) -> None:  # fmt: skip
        """A span with these ids, from `began` to `ended` (seconds since the epoch)."""
        if not context.sampled:
            return
        self._ids.trace, self._ids.span = int(context.trace, 16), int(span, 16)
        above = None
        if parent:
            flags = TraceFlags(TraceFlags.SAMPLED)
            remote = SpanContext(int(context.trace, 16), int(parent, 16), is_remote=True, trace_flags=flags)
            above = trace.set_span_in_context(NonRecordingSpan(remote))
        found = self._tracer.start_span(name, above, kind, attributes, start_time=int(began * 1e9))
        if error:
            found.set_status(Status(StatusCode.ERROR, error))
        found.end(int(ended * 1e9))


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
