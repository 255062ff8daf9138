"""One OpenTelemetry span a request, named by the GenAI conventions. Only where an OTLP endpoint is set in the environment."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from gateway import __version__
from gateway.exchange import Exchange, Observer, Outcome
from router.errors import MissingExtraError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def observers(environment: Mapping[str, str] = os.environ) -> tuple[Observer, ...]:
    """The tracing observer where an endpoint is set, else none. Raises MissingExtraError where the `otel` extra is missing."""
    if not any(environment.get(name) for name in ENDPOINTS):
        return ()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise MissingExtraError("opentelemetry-sdk", "otel") from error
    provider = TracerProvider(resource=Resource.create({"service.name": "moe-gateway", "service.version": __version__}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return (observer(provider),)


def observer(provider: TracerProvider) -> Observer:
    """Writes each finished exchange to `provider` as one span with the times that it really had."""
    tracer = provider.get_tracer("moe_gateway", __version__)

    def write(exchange: Exchange) -> None:
        now, end = time.time_ns(), exchange.finished or time.perf_counter()
        span = tracer.start_span("chat", start_time=now - int((end - exchange.started) * 1e9))
        span.set_attributes({name: value for name, value in _attributes(exchange).items() if value is not None})
        span.end(end_time=now)

    return write


def _attributes(exchange: Exchange) -> dict[str, str | int | float | None]:
    decision, usage = exchange.decision, exchange.usage
    failed = exchange.outcome not in (Outcome.OK, Outcome.CANCELLED)
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "moe-gateway",
        "gen_ai.request.model": exchange.expert.upstream_model if exchange.expert else None,
        "gen_ai.usage.input_tokens": usage.input + usage.cached_input if usage else None,
        "gen_ai.usage.output_tokens": usage.output if usage else None,
        "error.type": str(exchange.outcome) if failed else None,
        "http.response.status_code": exchange.status,
        "moe.request_id": exchange.id,
        "moe.expert": exchange.expert_id,
        "moe.domain": decision.scores.domain if decision and decision.scores else None,
        "moe.reason": decision.reason if decision else None,
        "moe.cost_usd": exchange.cost,
    }
