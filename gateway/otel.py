"""OpenTelemetry: spans whose ids were given out before, exported as OTLP over HTTP.

The exporter reads OpenTelemetry's own variables (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_HEADERS` ...). Only who exports imports
this: nobody else pays for its imports and its thread.
"""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

__all__ = ["Spans"]


class _Ids(IdGenerator):
    """Hands out the ids that it was given: a span's id is sent to the function before the span is made."""

    def __init__(self) -> None:
        self.trace = self.span = 0

    def generate_trace_id(self) -> int:
        return self.trace

    def generate_span_id(self) -> int:
        return self.span


class Spans:
    """Of one process. `shutdown` sends what waits and ends the exporter's thread (it blocks: not on the event loop)."""

    def __init__(self, service: str, exporter: SpanExporter | None = None) -> None:
        self._ids = _Ids()
        resource = Resource.create({"service.name": service})
        self._provider = TracerProvider(resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer(service.replace("-", "."))

    def flush(self) -> None:
        self._provider.force_flush()

    def shutdown(self) -> None:
        self._provider.shutdown()

    def record(
        self, ids: tuple[str, str, str], name: str, kind: SpanKind, began: float, ended: float, error: str,
        attributes: Mapping[str, str | int | float],
    ) -> None:  # fmt: skip
        """A span from `began` to `ended` (seconds since the epoch). `ids` are those of its trace, of itself and of the one above ("": none), in
        hex digits; `error` "" is a success."""
        own, span, parent = ids
        self._ids.trace, self._ids.span = int(own, 16), int(span, 16)
        above = None
        if parent:
            flags = TraceFlags(TraceFlags.SAMPLED)
            remote = SpanContext(int(own, 16), int(parent, 16), is_remote=True, trace_flags=flags)
            above = trace.set_span_in_context(NonRecordingSpan(remote))
        found = self._tracer.start_span(name, above, kind, attributes, start_time=int(began * 1e9))
        if error:
            found.set_status(Status(StatusCode.ERROR, error))
        found.end(int(ended * 1e9))

    def server(
        self, ids: tuple[str, str, str], name: str, began: float, ended: float, error: str,
        attributes: Mapping[str, str | int | float],
    ) -> None:  # fmt: skip
        """As `record`, of a request that was served."""
        self.record(ids, name, SpanKind.SERVER, began, ended, error, attributes)
