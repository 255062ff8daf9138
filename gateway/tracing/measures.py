"""The GenAI metrics of the conventions, for those who collect by OTLP. Prometheus' own are in gateway/metrics.py."""

from __future__ import annotations

from opentelemetry.metrics import Histogram, Meter

from gateway.exchange import Exchange, Outcome
from gateway.tracing import conventions as named

# The bounds that the conventions advise.
SECONDS = tuple(0.01 * 2**i for i in range(14))
FIRST_TOKEN_SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
PER_TOKEN_SECONDS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
TOKENS = tuple(float(4**i) for i in range(14))


class Measures:
    """Of exchanges that an expert was asked in. Attributes come from experts.yaml and fixed sets: what a client or a server says
    makes no series."""

    def __init__(self, meter: Meter) -> None:
        def histogram(name: str, unit: str, what: str, bounds: tuple[float, ...]) -> Histogram:
            return meter.create_histogram(name, unit, what, explicit_bucket_boundaries_advisory=bounds)

        self._tokens = histogram(named.TOKEN_USAGE, "{token}", "Tokens that were read and written.", TOKENS)
        self._duration = histogram(named.OPERATION_DURATION, "s", "From a request to its whole answer.", SECONDS)
        self._first = histogram(named.TIME_TO_FIRST_TOKEN, "s", "Until the first token streamed.", FIRST_TOKEN_SECONDS)
        self._spacing = histogram(named.TIME_PER_OUTPUT_TOKEN, "s", "Each token after the first.", PER_TOKEN_SECONDS)

    def observe(self, exchange: Exchange) -> None:
        expert, usage = exchange.expert, exchange.usage
        if expert is None or exchange.endpoint not in named.OPERATIONS:
            return
        said = {
            named.OPERATION: named.OPERATIONS[exchange.endpoint],
            named.PROVIDER: named.provider(expert),
            named.REQUEST_MODEL: expert.upstream_model,
            named.RESPONSE_MODEL: expert.upstream_model,
        }
        if usage is not None:
            self._tokens.record(usage.input + usage.cached_input, {**said, named.TOKEN_TYPE: "input"})
            self._tokens.record(usage.output, {**said, named.TOKEN_TYPE: "output"})
        if exchange.outcome not in (Outcome.OK, Outcome.CANCELLED):
            self._duration.record(exchange.seconds, {**said, named.ERROR_TYPE: str(exchange.outcome)})
            return
        self._duration.record(exchange.seconds, said)
        first, last = exchange.first_token, exchange.last_token
        if exchange.stream and first is not None and last is not None:
            self._first.record(first - exchange.started, said)
            if usage is not None and usage.output > 1:
                self._spacing.record((last - first) / (usage.output - 1), said)
