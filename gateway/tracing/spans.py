"""RequestTrace: the spans of one exchange, written with the times that things really had."""

from __future__ import annotations

import time
from collections.abc import Mapping

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, format_span_id, format_trace_id
from opentelemetry.trace.propagation import set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from gateway.exchange import Attempt, Exchange, Outcome
from gateway.tracing import conventions as named
from router.experts import Expert

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
CALM = (Outcome.OK, Outcome.CANCELLED)  # no error of anybody's
_W3C = TraceContextTextMapPropagator()


class RequestTrace:
    """A server span, from the exchange's start to its end. Below it one of each attempt, which begins before its request goes up,
    so that the model server's own spans are below that, and one of the routing.

    `headers` are the client's: a traceparent among them names the parent, and says whether the trace is recorded where the
    sampler is led by that. One that is no good is as none.
    """

    def __init__(self, tracer: Tracer, exchange: Exchange, headers: Mapping[str, str]) -> None:
        self._tracer, self._endpoint = tracer, exchange.endpoint
        self._zero = time.time_ns() - time.perf_counter_ns()
        route = named.route(exchange.endpoint)
        self._span = tracer.start_span(
            f"POST {route}",
            context=_W3C.extract(headers, Context()),
            kind=SpanKind.SERVER,
            attributes={named.METHOD: "POST", named.ROUTE: route, "moe.request_id": exchange.id},
            start_time=self._at(exchange.started),
        )
        self._below = set_span_in_context(self._span, Context())
        self._attempts: list[tuple[Attempt, Span]] = []
        context = self._span.get_span_context()
        self.id = format_trace_id(context.trace_id) if context.trace_flags.sampled else None

    def attempt(self, attempt: Attempt, expert: Expert | None) -> Mapping[str, str]:
        """A span of its own begins; the headers name it as the parent of what the server does."""
        operation, model = named.OPERATIONS[self._endpoint], expert.upstream_model if expert else attempt.expert
        attributes: dict[str, AttributeValue] = {
            named.OPERATION: operation,
            named.REQUEST_MODEL: model,
            "moe.expert": attempt.expert,
            "moe.replica": attempt.replica,
            "moe.attempt": len(self._attempts) + 1,
        }
        if expert is not None:
            attributes[named.PROVIDER] = named.provider(expert)
        span = self._tracer.start_span(
            f"{operation} {model}", self._below, SpanKind.CLIENT, attributes, start_time=self._at(attempt.started)
        )
        self._attempts.append((attempt, span))
        return _headers(span)

    def end(self, exchange: Exchange) -> None:
        """Write what the finished exchange was. Nothing of its prompt, its answer, its keys or its addresses."""
        if not self._span.is_recording():
            return
        self._routing(exchange)
        for attempt, span in self._attempts:
            self._end_attempt(exchange, attempt, span)
        span, decision = self._span, exchange.decision
        _set(
            span,
            {
                named.STATUS: exchange.status,
                named.ERROR_TYPE: None if exchange.outcome in CALM else str(exchange.outcome),
                "moe.outcome": str(exchange.outcome),
                "moe.caller": exchange.caller,
                "moe.expert": exchange.expert_id,
                "moe.reason": decision.reason if decision else None,
                "moe.attempts": len(exchange.attempts),
                "moe.cost_usd": exchange.cost,
                "moe.estimated_usd": exchange.charge.estimated,
                "moe.energy_wh": exchange.charge.energy_wh,
            },
        )
        # Of a refused request the client is the cause; one that broke off has told it status 200.
        if exchange.status >= 500 or (exchange.status < 400 and exchange.outcome not in CALM):
            span.set_status(Status(StatusCode.ERROR))
        span.end(self._at(exchange.started + exchange.seconds))

    def _routing(self, exchange: Exchange) -> None:
        decision, decided = exchange.decision, exchange.decided
        if decision is None or decided is None:
            return
        span = self._tracer.start_span("route", self._below, start_time=self._at(decided - decision.seconds))
        scores = decision.scores
        _set(
            span,
            {
                "moe.expert": decision.expert,
                "moe.reason": decision.reason,
                "moe.stage": decision.stage,
                "moe.domain": scores.domain if scores else None,
                "moe.confidence": round(scores.confidence, 4) if scores else None,
                "moe.switched": decision.switched,
                "moe.fallbacks": decision.fallbacks,
                "moe.router": decision.artifact,
            },
        )
        span.end(self._at(decided))

    def _end_attempt(self, exchange: Exchange, attempt: Attempt, span: Span) -> None:
        failed = attempt.outcome not in CALM
        said = self._answered(exchange, attempt) if attempt is exchange.attempts[-1] else {}
        said |= {"moe.outcome": str(attempt.outcome), named.ERROR_TYPE: str(attempt.outcome) if failed else None}
        _set(span, said)
        if failed:
            span.set_status(Status(StatusCode.ERROR))
        span.end(self._at(attempt.started + attempt.seconds))

    def _answered(self, exchange: Exchange, attempt: Attempt) -> dict[str, AttributeValue | None]:
        """What is known of the attempt that the exchange ended with alone."""
        usage, first = exchange.usage, exchange.first_token
        return {
            named.REQUEST_STREAM: exchange.stream,
            named.RESPONSE_MODEL: exchange.expert.upstream_model if exchange.expert and first else None,
            named.FIRST_CHUNK: first - attempt.started if first and exchange.stream else None,
            named.INPUT_TOKENS: usage.input + usage.cached_input if usage else None,
            named.CACHED_TOKENS: usage.cached_input if usage else None,
            named.OUTPUT_TOKENS: usage.output if usage else None,
            named.REASONING_TOKENS: usage.reasoning if usage else None,
        }

    def _at(self, seconds: float) -> int:
        """A time of time.perf_counter, in nanoseconds since 1970. All of a trace by one clock: none ends before it began."""
        return self._zero + int(seconds * 1e9)


def _headers(span: Span) -> dict[str, str]:
    context = span.get_span_context()
    trace, parent = format_trace_id(context.trace_id), format_span_id(context.span_id)
    headers = {TRACEPARENT: f"00-{trace}-{parent}-{context.trace_flags:02x}"}
    if context.trace_state:
        headers[TRACESTATE] = context.trace_state.to_header()
    return headers


def _set(span: Span, attributes: Mapping[str, AttributeValue | None]) -> None:
    span.set_attributes({name: value for name, value in attributes.items() if value is not None})
