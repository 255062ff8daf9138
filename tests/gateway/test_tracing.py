from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Histogram, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as genai
from opentelemetry.semconv._incubating.attributes import service_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.semconv.attributes import error_attributes, http_attributes
from opentelemetry.trace import StatusCode, format_span_id, format_trace_id

from gateway import __version__, tracing
from gateway.exchange import Exchange, Outcome
from gateway.requests.base import ModelRequest
from gateway.routes.carried import KINDS
from gateway.tracing import conventions
from gateway.tracing.telemetry import Telemetry, exporting
from gateway.usage import Usage
from tests.fakes.memory import decision, experts_file

FILE = experts_file({"coder": {"model": "served/model", "price": {"input": 1.0, "output": 2.0}}})
FAILURES = [outcome for outcome in Outcome if outcome not in (Outcome.OK, Outcome.CANCELLED)]


def traced(
    *deeds: Callable[[Exchange], None], headers: Mapping[bytes, bytes] | None = None
) -> tuple[Exchange, tuple[ReadableSpan, ...]]:
    """An exchange to which `deeds` were done, and the spans that it left."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry = Telemetry(provider)
    exchange = Exchange("r1", "chat.completions", (telemetry.observe,), caller="team-a")
    telemetry.begin(exchange, headers or {})
    for deed in deeds:
        deed(exchange)
    telemetry.close()
    return exchange, exporter.get_finished_spans()


def decided(exchange: Exchange) -> None:
    exchange.decision = decision("coder", domains={"code": 0.9, "general": 0.1})
    exchange.decided = exchange.started + 0.002


def tried(outcome: Outcome | None) -> Callable[[Exchange], None]:
    """An attempt that came out so; one that is not ended where it is None."""

    def try_it(exchange: Exchange) -> None:
        exchange.begin("coder", FILE.experts["coder"])
        attempt = exchange.attempt("coder", f"coder-{len(exchange.attempts)}")
        if outcome is not None:
            exchange.end_attempt(attempt, outcome)

    return try_it


def answered(exchange: Exchange) -> None:
    exchange.usage = Usage(input=400, cached_input=100, output=250, reasoning=50)
    exchange.token()


def finished(outcome: Outcome, status: int) -> Callable[[Exchange], None]:
    return lambda exchange: exchange.finish(outcome, status)


def said(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def test_the_server_span_says_who_asked_who_answered_and_what_it_cost() -> None:
    _, spans = traced(decided, tried(Outcome.OK), answered, finished(Outcome.OK, 200))
    assert [span.name for span in spans] == ["route", "chat served/model", "POST /v1/chat/completions"]
    assert said(spans[-1]) == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "moe.request_id": "r1",
        "moe.caller": "team-a",
        "moe.outcome": "ok",
        "moe.expert": "coder",
        "moe.reason": "best",
        "moe.attempts": 1,
        "moe.cost_usd": pytest.approx(0.001),
    }


def test_an_exchange_that_reached_nothing_leaves_out_what_it_does_not_know() -> None:
    _, [span] = traced(finished(Outcome.CLIENT_ERROR, 400))
    assert set(said(span)) == {
        "http.request.method", "http.route", "http.response.status_code", "error.type",
        "moe.request_id", "moe.caller", "moe.outcome", "moe.attempts",
    }  # fmt: skip


@given(st.lists(st.sampled_from([*Outcome, None]), max_size=5), st.sampled_from(list(Outcome)), st.booleans())
def test_every_attempt_is_one_span_below_the_servers_and_within_its_time(
    outcomes: list[Outcome | None], last: Outcome, hedged: bool
) -> None:
    def first_answers(exchange: Exchange) -> None:
        if hedged and exchange.attempts:
            exchange.answered_by(exchange.attempts[0])

    deeds = [tried(outcome) for outcome in outcomes]
    exchange, spans = traced(decided, *deeds, first_answers, finished(last, 200))
    *below, server = spans
    assert server.context is not None
    assert server.start_time is not None
    assert server.end_time is not None
    attempts = [span for span in below if span.name != "route"]
    assert len(attempts) == len(outcomes)
    by_replica = {said(span)["moe.replica"]: span for span in attempts}
    for attempt in exchange.attempts:
        span = by_replica[attempt.replica]
        assert span.context is not None
        assert span.parent is not None
        assert span.parent.span_id == server.context.span_id
        trace, own = format_trace_id(server.context.trace_id), format_span_id(span.context.span_id)
        assert re.fullmatch(rf"00-{trace}-{own}-0[13]", (attempt.traced or {})["traceparent"])
        assert said(span)["moe.outcome"] == attempt.outcome
        assert span.start_time is not None
        assert span.end_time is not None
        assert server.start_time <= span.start_time <= span.end_time <= server.end_time
        began, ended = span.start_time - server.start_time, span.end_time - server.start_time
        assert abs(began / 1e9 - (attempt.started - exchange.started)) < 1e-6
        assert abs(ended / 1e9 - (attempt.started + attempt.seconds - exchange.started)) < 1e-6
    assert len({span.context.span_id for span in spans if span.context}) == len(spans)
    assert sum("gen_ai.request.stream" in said(span) for span in attempts) == min(1, len(outcomes))


@pytest.mark.parametrize("outcome", list(Outcome))
@pytest.mark.parametrize("status", [200, 429, 500, 503])
def test_a_failure_is_an_error_of_the_span_where_it_is_not_the_clients(outcome: Outcome, status: int) -> None:
    _, [span] = traced(finished(outcome, status))
    failed = outcome in FAILURES
    assert said(span).get("error.type") == (str(outcome) if failed else None)
    error = status >= 500 or (status == 200 and failed)
    assert (span.status.status_code is StatusCode.ERROR) == error
    assert span.status.description is None


@pytest.mark.parametrize("seconds", [0.0, 0.125, 42.5])
def test_the_span_spans_the_exchange(seconds: float) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    exchange, telemetry = Exchange("r1", "embeddings", started=1000.0), Telemetry(provider)
    telemetry.begin(exchange, {})
    exchange.finish(Outcome.OK, 200)
    exchange.finished = 1000.0 + seconds
    telemetry.observe(exchange)
    [span] = exporter.get_finished_spans()
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.end_time - span.start_time == int(seconds * 1e9)


def test_the_time_of_a_token_is_that_between_two_and_of_one_alone_there_is_none() -> None:
    reader = InMemoryMetricReader()
    telemetry = Telemetry(None, MeterProvider([reader]))
    for tokens in (5, 1):
        exchange = Exchange("r1", "chat.completions", started=1000.0, stream=True)
        exchange.begin("coder", FILE.experts["coder"])
        exchange.usage, exchange.first_token, exchange.last_token = Usage(8, 3, tokens), 1000.5, 1002.5
        exchange.finish(Outcome.OK, 200)
        telemetry.observe(exchange)
    data = reader.get_metrics_data()
    telemetry.close()
    assert data is not None
    points = {
        metric.name: [(point.count, point.sum) for point in metric.data.data_points]
        for metric in data.resource_metrics[0].scope_metrics[0].metrics
        if isinstance(metric.data, Histogram)
    }
    assert points["gen_ai.server.time_per_output_token"] == [(1, 0.5)]
    assert points["gen_ai.server.time_to_first_token"] == [(2, 1.0)]
    assert points["gen_ai.client.token.usage"] == [(2, 22), (2, 6)]


def test_what_the_operator_says_of_the_service_goes_before_what_we_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=theirs,team=a")
    telemetry = exporting(traces=True, metrics=False)
    [provider] = telemetry._providers
    telemetry.close()
    assert isinstance(provider, TracerProvider)
    told = provider.resource.attributes
    assert (told["service.name"], told["team"], told["service.version"]) == ("theirs", "a", __version__)


def test_what_is_not_recorded_has_no_trace_id_but_goes_up() -> None:
    telemetry = Telemetry(TracerProvider(sampler=ALWAYS_OFF))
    exchange = Exchange("r1", "chat.completions", (telemetry.observe,))
    telemetry.begin(exchange, {})
    tried(Outcome.OK)(exchange)
    exchange.finish(Outcome.OK, 200)
    assert exchange.trace_id is None
    assert int((exchange.attempts[0].traced or {})["traceparent"][-2:], 16) & 1 == 0
    recorded, [span] = traced(finished(Outcome.OK, 200))
    assert span.context is not None
    assert recorded.trace_id == format_trace_id(span.context.trace_id)


@given(st.binary(max_size=600), st.binary(max_size=600))
def test_no_trace_context_does_any_harm(traceparent: bytes, tracestate: bytes) -> None:
    headers = {b"traceparent": traceparent, b"tracestate": tracestate}
    exchange, [span] = traced(finished(Outcome.OK, 200), headers=headers)
    assert exchange.trace_id is not None or span.parent is not None


def test_the_names_are_those_of_the_installed_conventions() -> None:
    names = {name: value for name, value in vars(conventions).items() if name.isupper() and isinstance(value, str)}
    known = {
        value
        for module in (genai, gen_ai_metrics, error_attributes, http_attributes, service_attributes)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str)
    }
    assert {name: value for name, value in names.items() if value not in known} == {
        "VLLM": "vllm",
        "EMBEDDED": "llama_cpp",
    }
    providers = {provider.value for provider in genai.GenAiProviderNameValues}
    assert set(conventions.PROVIDERS.values()) <= providers
    operations = {operation.value for operation in genai.GenAiOperationNameValues}
    assert {conventions.OPERATIONS[kind.endpoint] for kind in KINDS.values()} - operations == {"count_tokens"}


@pytest.mark.parametrize(("path", "kind"), KINDS.items())
def test_the_route_is_the_path(path: str, kind: type[ModelRequest]) -> None:
    assert conventions.route(kind.endpoint) == path


@pytest.mark.parametrize(
    ("upstream", "provider"),
    [
        ({"vllm": ["http://a.test/v1"]}, "vllm"),
        ({"embedded": "smollm2"}, "llama_cpp"),
        ({"litellm": "anthropic/claude"}, "anthropic"),
        ({"litellm": "bedrock/nova"}, "aws.bedrock"),
    ],
)
def test_the_provider_is_who_runs_the_model(upstream: dict[str, object], provider: str) -> None:
    expert = experts_file({"coder": {"upstream": upstream}}).experts["coder"]
    assert conventions.provider(expert) == provider


ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {ENDPOINT: ""},
        {"OTEL_SERVICE_NAME": "x", "OTEL_TRACES_EXPORTER": "otlp"},
        {ENDPOINT: "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "True"},
        {ENDPOINT: "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"},
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "console"},
    ],
)
def test_without_an_endpoint_nothing_is_exported(environment: dict[str, str]) -> None:
    assert tracing.from_environment(environment) is None


def test_a_protocol_that_is_not_spoken_is_told_and_nothing_exported(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        environment = {ENDPOINT: "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
        assert tracing.from_environment(environment) is None
    assert [getattr(record, "signal", None) for record in caplog.records] == ["traces", "metrics"]


def in_a_process_of_its_own(program: str) -> str:
    """What `program` prints: an exporter starts threads, and a module cannot be missing here."""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def test_each_signal_has_an_endpoint_of_its_own_and_may_have_one_in_common() -> None:
    program = (
        "from gateway import tracing\n"
        "for name in ('', 'TRACES_', 'METRICS_'):\n"
        "    t = tracing.from_environment({f'OTEL_EXPORTER_OTLP_{name}ENDPOINT': 'http://127.0.0.1:9'})\n"
        "    print(t._tracer is not None, t._measures is not None)\n"
    )
    assert in_a_process_of_its_own(program).split("\n") == ["True True", "True False", "False True"]


def test_where_the_extra_is_missing_the_install_command_is_told() -> None:
    program = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from gateway import tracing\n"
        "from router.errors import MissingExtraError\n"
        "assert tracing.from_environment({}) is None\n"
        "try: tracing.from_environment({'OTEL_EXPORTER_OTLP_ENDPOINT': 'http://127.0.0.1:9'})\n"
        "except MissingExtraError as error: print(error)\n"
    )
    told = in_a_process_of_its_own(program)
    assert "pip install" in told
    assert "otel" in told
