"""Spans of calls reach an OTLP receiver over HTTP, with the ids that the function was told."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from faaslite.launch.tracing import exporter, gateway_exporter
from gateway.jobs.calls.base import Claimed, Options, Request, Try
from gateway.jobs.calls.trace import NoTracing, context_of, parse, root_span
from gateway.jobs.otel import Telemetry

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Receiver:
    """A tiny OTLP/HTTP receiver."""

    def __init__(self) -> None:
        self.spans: dict[str, Span] = {}
        self.paths: set[str] = set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.paths.add(self.path)
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    for scope in resource.scope_spans:
                        receiver.spans |= {each.name: each for each in scope.spans}
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Not into the test's output."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def receiver():
    found = Receiver()
    yield found
    found.close()


def call(**given) -> Claimed:
    values = {"id": "c1", "namespace": "team", "function": "f", "trigger": "async", "cron": "", "scheduled_at": 0.0, "accepted_at": 100.0,
              "attempts": 2, "refusals": 0, "retries": 3, "max_age": 0.0, "fence": 1, "request": Request(), "since": 100.0}  # fmt: skip
    return Claimed(**{**values, **given})


def test_a_call_and_its_tries_are_spans_of_the_callers_trace(receiver):
    telemetry = Telemetry(OTLPSpanExporter(f"{receiver.url}/v1/traces"))
    held = call(options=Options(traceparent=f"00-{TRACE}-{PARENT}-01"))
    first = telemetry.begin(held, 101.0)
    told = parse(first.traceparent)
    first.end(Try(101.0, 102.5, 200, 0.5), "Succeeded")
    telemetry.shutdown()
    tried, whole = receiver.spans["try f.team"], receiver.spans["call f.team"]
    assert told is not None and told.trace == TRACE
    assert (tried.trace_id.hex(), tried.span_id.hex()) == (TRACE, told.parent)
    assert tried.parent_span_id == whole.span_id == bytes.fromhex(root_span("c1"))
    assert (whole.trace_id.hex(), whole.parent_span_id.hex()) == (TRACE, PARENT)
    assert (whole.start_time_unix_nano, whole.end_time_unix_nano) == (100_000_000_000, 102_500_000_000)
    values = {each.key: each.value for each in tried.attributes}
    assert (values["http.response.status_code"].int_value, values["faaslite.call.id"].string_value) == (200, "c1")
    assert values["faas.coldstart_seconds"].double_value == 0.5


def test_failures_are_errors_and_what_is_not_sampled_is_not_sent(receiver):
    telemetry = Telemetry(OTLPSpanExporter(f"{receiver.url}/v1/traces"))
    quiet = telemetry.begin(call(function="quiet", options=Options(traceparent=f"00-{TRACE}-{PARENT}-00")), 1.0)
    assert quiet.traceparent.endswith("-00")
    quiet.end(Try(1.0, 2.0, 200), "Succeeded")
    telemetry.begin(call(), 1.0).end(Try(1.0, 2.0, 500, error="no"), "")
    telemetry.shutdown()
    assert set(receiver.spans) == {"try f.team"}
    status = receiver.spans["try f.team"].status
    assert (status.code, status.message) == (Status.STATUS_CODE_ERROR, "no")


async def test_launch_exports_only_where_an_endpoint_is_set(receiver, monkeypatch):
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", raising=False)
    assert exporter() is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    exporting = exporter()
    assert exporting is not None
    exporting.tracing.begin(call(), 1.0).end(Try(1.0, 2.0, 200), "")
    await exporting.stop()
    assert (set(receiver.spans), receiver.paths) == ({"try f.team"}, {"/v1/traces"})


async def test_a_worker_of_the_gateway_exports_what_it_served(receiver, monkeypatch):
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", raising=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    exporting = gateway_exporter()
    assert exporting is not None
    exporting.tracing.server((TRACE, "1" * 16, PARENT), "f.team", 1.0, 1.5, "status 504", {"faas.invoked_name": "f"})
    await exporting.stop()
    (span,) = receiver.spans.values()
    assert (span.name, span.kind) == ("f.team", Span.SPAN_KIND_SERVER)
    assert (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()) == (TRACE, "1" * 16, PARENT)
    assert span.end_time_unix_nano - span.start_time_unix_nano == 500_000_000
    assert (span.status.code, span.status.message) == (Status.STATUS_CODE_ERROR, "status 504")


def test_without_export_the_context_goes_on_all_the_same():
    held = call(options=Options(traceparent=f"00-{TRACE}-{PARENT}-01"))
    spans = [NoTracing().begin(held, 1.0) for _ in range(2)]
    assert {parse(each.traceparent).trace for each in spans} == {TRACE}  # type: ignore[union-attr]
    assert len({each.traceparent for each in spans}) == 2
    spans[0].end(Try(1.0, 2.0), "Succeeded")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}",
    ],
)
def test_what_is_no_traceparent_begins_a_trace_of_its_own(text):
    assert parse(text) is None
    own = context_of("c1", Options(traceparent=text))
    assert (len(own.trace), own.parent, own.sampled) == (32, "", True)
    assert context_of(TRACE, Options()).trace == TRACE
