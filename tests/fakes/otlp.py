"""A receiver of OpenTelemetry's spans and metrics: real OTLP over HTTP on loopback, with a memory of all that it was sent."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Protobuf
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests.fakes.upstream import PATIENCE


@dataclass(frozen=True)
class Span:
    """Ids as they stand in a traceparent, times in nanoseconds."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    state: str
    began: int
    ended: int
    error: bool
    said: str  # of the status
    attributes: Mapping[str, Any]
    events: tuple[str, ...]
    service: Mapping[str, Any]


@dataclass
class Receiver:
    """`sent` are the bodies as they came; `metrics` has by name and attributes the count and the sum that were told last."""

    port: int = 0
    spans: list[Span] = field(default_factory=list)
    metrics: dict[tuple[str, frozenset[tuple[str, Any]]], tuple[int, float]] = field(default_factory=dict)
    sent: list[bytes] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def take(self, path: str, body: bytes) -> None:
        with self.changed:
            self.sent.append(body)
            if path == "/v1/traces":
                self.spans += _spans(body)
            elif path == "/v1/metrics":
                self.metrics |= _metrics(body)
            self.changed.notify_all()

    def wait(self, until: Callable[[Receiver], bool]) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: until(self), PATIENCE)

    def request(self, request_id: str) -> list[Span]:
        """The server span of a request and those below it, by when they began."""

        def servers() -> list[Span]:
            return [span for span in self.spans if span.attributes.get("moe.request_id") == request_id]

        assert self.wait(lambda _: bool(servers())), f"no spans of {request_id}"
        [server] = servers()  # which ends last, and so is sent last
        return [server, *sorted((span for span in self.spans if span.parent == server.id), key=lambda s: s.began)]


@contextmanager
def receiver() -> Iterator[Receiver]:
    """In a thread of its own."""
    seen = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()
            seen.take(self.path, body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        seen.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield seen
        finally:
            server.shutdown()
            thread.join(PATIENCE)


def _spans(body: bytes) -> Iterable[Span]:
    for of_service in ExportTraceServiceRequest.FromString(body).resource_spans:
        service = _attributes(of_service.resource.attributes)
        for of_scope in of_service.scope_spans:
            for span in of_scope.spans:
                yield Span(
                    span.name,
                    Protobuf.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.trace_state,
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    span.status.code == Status.STATUS_CODE_ERROR,
                    span.status.message,
                    _attributes(span.attributes),
                    tuple(event.name for event in span.events),
                    service,
                )


def _metrics(body: bytes) -> Iterable[tuple[tuple[str, frozenset[tuple[str, Any]]], tuple[int, float]]]:
    for of_service in ExportMetricsServiceRequest.FromString(body).resource_metrics:
        for of_scope in of_service.scope_metrics:
            for metric in of_scope.metrics:
                for point in metric.histogram.data_points:
                    key = metric.name, frozenset(_attributes(point.attributes).items())
                    yield key, (point.count, point.sum)


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return tuple(_value(item) for item in value.array_value.values)
    return None if kind is None else getattr(value, kind)
