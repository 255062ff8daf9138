"""Telemetry: one process's share in OpenTelemetry, from its first request to its last."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Mapping

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider

from gateway import __version__
from gateway.exchange import Exchange
from gateway.tracing import conventions as named
from gateway.tracing.measures import Measures
from gateway.tracing.spans import TRACEPARENT, TRACESTATE, RequestTrace

SCOPE = "moe_gateway"
CLOSE_SECONDS = 5.0  # for what is not sent yet, where the receiver is slow or down
W3C_HEADERS = (TRACEPARENT, TRACESTATE)


class Telemetry:
    """Spans where there is a `tracing` provider, metrics where there is one for `measuring`. What is exported is so by threads of
    theirs, from queues that drop what they have no room for."""

    def __init__(self, tracing: TracerProvider | None = None, measuring: MeterProvider | None = None) -> None:
        self._providers = [provider for provider in (tracing, measuring) if provider is not None]
        self._tracer = tracing.get_tracer(SCOPE, __version__) if tracing is not None else None
        self._measures = Measures(measuring.get_meter(SCOPE, __version__)) if measuring is not None else None

    def begin(self, exchange: Exchange, headers: Mapping[bytes, bytes]) -> None:
        """The exchange is traced from now on, below what the client's `headers` name."""
        if self._tracer is not None:
            w3c = {name: headers[name.encode()].decode("latin-1") for name in W3C_HEADERS if name.encode() in headers}
            exchange.trace = RequestTrace(self._tracer, exchange, w3c)

    def observe(self, exchange: Exchange) -> None:
        """A finished exchange."""
        if isinstance(exchange.trace, RequestTrace):
            exchange.trace.end(exchange)
        if self._measures is not None:
            self._measures.observe(exchange)

    def close(self) -> None:
        """Send what is not sent yet, within CLOSE_SECONDS. Blocks for so long at most; the threads end with the process."""
        until = time.monotonic() + CLOSE_SECONDS
        closing = [threading.Thread(target=provider.shutdown, daemon=True) for provider in self._providers]
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join(max(0.0, until - time.monotonic()))


def exporting(traces: bool, metrics: bool) -> Telemetry:
    """Exports by OTLP as OpenTelemetry's variables say, its sampler's among them."""
    # They tell of every header that is no good, and what it said: any client could fill the log.
    logging.getLogger("opentelemetry.trace").setLevel(logging.ERROR)
    # What the operator says of the service goes before what we say.
    ours = {
        named.SERVICE_NAME: "moe-gateway",
        named.SERVICE_VERSION: __version__,
        named.SERVICE_INSTANCE: str(uuid.uuid4()),
    }
    resource = Resource.create(ours).merge(OTELResourceDetector().detect())
    return Telemetry(_tracing(resource) if traces else None, _measuring(resource) if metrics else None)


def _tracing(resource: Resource) -> TracerProvider:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def _measuring(resource: Resource) -> MeterProvider:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    return MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())], resource, shutdown_on_exit=False)
