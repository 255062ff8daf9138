from __future__ import annotations

import subprocess
import sys

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gateway import tracing
from gateway.exchange import Exchange, Outcome
from gateway.usage import Usage
from tests.fakes.memory import decision, experts_file

FILE = experts_file({"coder": {"model": "served/model", "price": {"input": 1.0, "output": 2.0}}})


def spans(*exchanges: Exchange) -> tuple[ReadableSpan, ...]:
    """The spans that these exchanges leave."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    observe = tracing.observer(provider)
    for exchange in exchanges:
        observe(exchange)
    provider.shutdown()
    return exporter.get_finished_spans()


def finished(outcome: Outcome = Outcome.OK, status: int = 200) -> Exchange:
    exchange = Exchange("r1", "chat.completions", caller="team-a")
    exchange.decision = decision("coder", domains={"code": 0.9, "general": 0.1})
    exchange.expert_id, exchange.expert = "coder", FILE.experts["coder"]
    exchange.usage = Usage(input=400, cached_input=100, output=250, reasoning=50)
    exchange.finish(outcome, status)
    return exchange


def test_an_exchange_is_one_span_with_the_attributes_of_the_genai_conventions() -> None:
    [span] = spans(finished())
    assert span.name == "chat"
    assert span.attributes is not None
    assert dict(span.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "moe-gateway",
        "gen_ai.request.model": "served/model",
        "gen_ai.usage.input_tokens": 500,
        "gen_ai.usage.output_tokens": 250,
        "http.response.status_code": 200,
        "moe.request_id": "r1",
        "moe.expert": "coder",
        "moe.domain": "code",
        "moe.reason": "best",
        "moe.cost_usd": pytest.approx(0.001),
    }


def test_each_exchange_has_a_trace_of_its_own() -> None:
    first, second = spans(finished(), finished())
    assert first.context is not None
    assert second.context is not None
    assert first.context.trace_id != second.context.trace_id
    assert first.parent is None


@pytest.mark.parametrize("seconds", [0.0, 0.125, 42.5])
def test_the_span_spans_the_exchange(seconds: float) -> None:
    exchange = finished()
    exchange.started, exchange.finished = 1000.0, 1000.0 + seconds
    [span] = spans(exchange)
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.end_time - span.start_time == int(seconds * 1e9)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_failure_has_its_outcome_as_the_error_type(outcome: Outcome) -> None:
    [span] = spans(finished(outcome, 500))
    assert span.attributes is not None
    expected = None if outcome in (Outcome.OK, Outcome.CANCELLED) else outcome.value
    assert span.attributes.get("error.type") == expected


def test_an_exchange_that_reached_nothing_leaves_out_what_it_does_not_know() -> None:
    exchange = Exchange("r2", "chat.completions")
    exchange.finish(Outcome.CLIENT_ERROR, 400)
    [span] = spans(exchange)
    assert span.attributes is not None
    assert set(span.attributes) == {
        "gen_ai.operation.name", "gen_ai.provider.name", "error.type", "http.response.status_code", "moe.request_id",
    }  # fmt: skip


@pytest.mark.parametrize(
    "environment", [{}, {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, {"OTEL_SERVICE_NAME": "x", "OTEL_TRACES_EXPORTER": "otlp"}]
)
def test_without_an_endpoint_nothing_observes(environment: dict[str, str]) -> None:
    assert tracing.observers(environment) == ()


def in_a_process_of_its_own(program: str) -> str:
    """What `program` prints: the exporter starts a thread, and a module cannot be missing here."""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def test_either_endpoint_sets_an_observer() -> None:
    program = (
        "from gateway import tracing; "
        "print([len(tracing.observers({name: 'http://127.0.0.1:9'})) for name in tracing.ENDPOINTS], tracing.ENDPOINTS)"
    )
    names = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    assert in_a_process_of_its_own(program) == f"[1, 1] {names}"


def test_where_the_extra_is_missing_the_install_command_is_told() -> None:
    program = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from gateway import tracing\n"
        "from router.errors import MissingExtraError\n"
        "assert tracing.observers({}) == ()\n"
        "try: tracing.observers({'OTEL_EXPORTER_OTLP_ENDPOINT': 'http://127.0.0.1:9'})\n"
        "except MissingExtraError as error: print(error)\n"
    )
    told = in_a_process_of_its_own(program)
    assert "pip install" in told
    assert "otel" in told


def test_opentelemetry_is_not_loaded_where_it_is_not_used() -> None:
    program = "import sys, gateway.tracing as t; t.observers({}); print('opentelemetry' in sys.modules)"
    assert in_a_process_of_its_own(program) == "False"
