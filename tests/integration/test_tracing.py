"""Spans as an OTLP receiver reads them back, and the trace context that model servers were sent."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.otlp import Receiver, receiver
from tests.fakes.upstream import PATIENCE, USAGE, FakeServer, chunk, endless, silent, status, streams, well
from tests.integration.conftest import ROOT, STARTING, Start, experts_yaml, serve

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
RECORDED, UNRECORDED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
STATE = "vendor=t61rcWkgMzE,other=1"
PROMPT = "the-patient-is-called-Ada"
EXPORTS = {"OTEL_BSP_SCHEDULE_DELAY": "20", "OTEL_METRIC_EXPORT_INTERVAL": "100"}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A receiver, to which gateways that start from now on export."""
    with receiver() as started:
        for name, value in {**EXPORTS, "OTEL_EXPORTER_OTLP_ENDPOINT": started.url}.items():
            monkeypatch.setenv(name, value)
        yield started


@cache
def client() -> httpx.Client:
    """One for all, since making one costs more than a request; each request has a connection of its own."""
    return httpx.Client(timeout=PATIENCE, limits=httpx.Limits(max_keepalive_connections=0))


def ask(url: str, request_id: str, traceparent: str = RECORDED, **body: Any) -> httpx.Response:
    headers = {"x-request-id": request_id, "traceparent": traceparent, "tracestate": STATE}
    body = {"model": "one", "messages": [{"role": "user", "content": PROMPT}], **body}
    return client().post(f"{url}/v1/chat/completions", json=body, headers=headers)


def test_a_request_is_a_server_span_a_routing_span_and_one_for_each_attempt(
    seen: Receiver, start: Start, servers: list[FakeServer]
) -> None:
    servers[0].behaviour = status(500)
    gateway = start(experts_yaml(*servers))
    assert ask(gateway.url, "req-1", model="auto").status_code == 200
    server, route, first, second = spans = seen.request("req-1")

    assert {span.trace for span in spans} == {TRACE}
    assert [(s.name, s.kind) for s in spans] == [
        ("POST /v1/chat/completions", "server"),
        ("route", "internal"),
        ("chat model-one", "client"),
        ("chat model-two", "client"),
    ]
    assert (server.parent, server.state) == (PARENT, STATE)
    assert [s.headers[-1]["traceparent"] for s in servers[:2]] == [f"00-{TRACE}-{s.id}-01" for s in (first, second)]
    assert [s.headers[-1]["tracestate"] for s in servers[:2]] == [STATE] * 2

    assert server.began <= route.began <= route.ended <= first.began <= first.ended <= second.began <= second.ended
    assert second.ended <= server.ended
    assert [(s.error, s.said) for s in spans] == [(False, ""), (False, ""), (True, ""), (False, "")]

    both = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "vllm"}
    assert first.attributes == {
        **both, "gen_ai.request.model": "model-one", "moe.expert": "one", "moe.replica": "one-0", "moe.attempt": 1,
        "moe.outcome": "server_error", "error.type": "server_error",
    }  # fmt: skip
    assert second.attributes == {
        **both, "gen_ai.request.model": "model-two", "moe.expert": "two", "moe.replica": "two-0", "moe.attempt": 2,
        "moe.outcome": "ok", "gen_ai.request.stream": False, "gen_ai.response.model": "model-two",
        "gen_ai.usage.input_tokens": USAGE["prompt_tokens"], "gen_ai.usage.cache_read.input_tokens": 3,
        "gen_ai.usage.output_tokens": USAGE["completion_tokens"], "gen_ai.usage.reasoning.output_tokens": 0,
    }  # fmt: skip
    assert (route.attributes["moe.expert"], route.attributes["moe.fallbacks"]) == ("one", ("two", "three"))
    assert server.attributes["moe.cost_usd"] == pytest.approx((8 * 1.0 + 3 * 0.5 + 4 * 2.0) / 1e6)
    assert server.attributes["http.response.status_code"] == 200
    assert (server.attributes["moe.expert"], server.attributes["moe.attempts"]) == ("two", 2)
    assert server.service["service.name"] == "moe-gateway"
    assert not [body for body in seen.sent if PROMPT.encode() in body or b"127.0.0.1" in body]


def test_of_a_hedged_request_both_attempts_are_there_with_the_times_that_they_had(
    seen: Receiver, start: Start, servers: list[FakeServer]
) -> None:
    asked: list[FakeServer] = []

    async def the_second_answers(server: FakeServer, request: Any, body: Any) -> Any:
        asked.append(server)
        return await (silent if len(asked) == 1 else well)(server, request, body)

    for server in servers[:2]:
        server.behaviour = the_second_answers
    text = experts_yaml(servers[0], expert_extra="    hedge: 50ms")
    gateway = start(text.replace(f"[{servers[0].url}]", f"[{servers[0].url}, {servers[1].url}]"))
    assert ask(gateway.url, "req-1", stream=True).status_code == 200

    server_span, _, *attempts = seen.request("req-1")
    by_parent = {f"00-{TRACE}-{span.id}-01": span for span in attempts}
    lost, won = (by_parent[s.headers[0]["traceparent"]] for s in asked)  # whichever came first
    assert [(s.attributes["moe.outcome"], s.error) for s in (lost, won)] == [("cancelled", False), ("ok", False)]
    assert max(lost.began, won.began) < lost.ended < won.ended <= server_span.ended
    assert "gen_ai.usage.output_tokens" not in lost.attributes
    assert 0 < won.attributes["gen_ai.response.time_to_first_chunk"] <= (won.ended - won.began) / 1e9


def test_a_client_that_leaves_a_stream_that_breaks_off_and_a_refusal_leave_their_spans(
    seen: Receiver, start: Start, servers: list[FakeServer]
) -> None:
    gateway = start(experts_yaml(servers[0]))
    servers[0].behaviour = endless
    body = {"model": "one", "messages": [{"role": "user", "content": PROMPT}], "stream": True}
    where = f"{gateway.url}/v1/chat/completions"
    with client().stream("POST", where, json=body, headers={"x-request-id": "gone"}) as reply:
        next(reply.iter_raw())
    server, _, attempt = seen.request("gone")
    assert [(s.attributes["moe.outcome"], s.error) for s in (server, attempt)] == [("cancelled", False)] * 2
    assert "error.type" not in server.attributes

    servers[0].behaviour = streams(chunk({"content": "so far"}))
    assert ask(gateway.url, "short", stream=True).status_code == 200
    server, _, attempt = seen.request("short")
    assert [(s.error, s.attributes["error.type"]) for s in (server, attempt)] == [(True, "truncated")] * 2

    servers[0].behaviour = status(400)
    assert ask(gateway.url, "wrong").status_code == 400
    server, _, attempt = seen.request("wrong")
    assert [(s.error, s.attributes["error.type"]) for s in (server, attempt)] == [
        (False, "client_error"),
        (True, "client_error"),
    ]

    assert ask(gateway.url, "unknown", model="no-such").status_code == 404
    [server] = seen.request("unknown")
    assert (server.error, server.attributes["error.type"]) == (False, "client_error")


HOSTILE: dict[str, str] = {
    "nothing": "",
    "words": "hello",
    "zeros": f"00-{'0' * 32}-{PARENT}-01",
    "no parent": f"00-{TRACE}-{'0' * 16}-01",
    "capitals": RECORDED.upper(),
    "of a version that cannot be": RECORDED.replace("00-", "ff-", 1),
    "too much": f"{RECORDED}-more",
    "two kilobytes": RECORDED + "-" * 2000,
    "no ASCII": RECORDED.replace("4bf9", "4bf\xb2"),
}


def test_a_hostile_trace_context_is_as_none(seen: Receiver, start: Start, servers: list[FakeServer]) -> None:
    gateway = start(experts_yaml(servers[0]))
    body = {"model": "one", "messages": [{"role": "user", "content": PROMPT}]}
    for i, traceparent in enumerate(HOSTILE.values()):
        given = {"x-request-id": f"req-{i}", "traceparent": traceparent, "tracestate": STATE}
        raw = [(name.encode(), value.encode("latin-1")) for name, value in given.items()]
        assert client().post(f"{gateway.url}/v1/chat/completions", json=body, headers=raw).status_code == 200
        server, _, attempt = seen.request(f"req-{i}")
        assert (server.parent, server.state) == ("", ""), list(HOSTILE)[i]
        assert server.trace not in (TRACE, "0" * 32)
        up = servers[0].headers[-1]
        assert re.fullmatch(rf"00-{server.trace}-{attempt.id}-0[13]", up["traceparent"])
        assert "tracestate" not in up
    assert len({span.trace for span in seen.spans}) == len(HOSTILE)


def test_what_its_client_does_not_record_is_passed_on_unrecorded(
    seen: Receiver, start: Start, servers: list[FakeServer]
) -> None:
    gateway = start(experts_yaml(servers[0]))
    assert ask(gateway.url, "quiet", UNRECORDED).status_code == 200
    assert ask(gateway.url, "recorded").status_code == 200
    seen.request("recorded")
    quiet = servers[0].headers[0]["traceparent"].split("-")
    assert (quiet[1], quiet[3]) == (TRACE, "00")
    assert quiet[2] != PARENT
    assert {span.attributes.get("moe.request_id") for span in seen.spans if span.kind == "server"} == {"recorded"}


def test_the_operators_sampler_decides_for_those_who_say_nothing(
    seen: Receiver, start: Start, servers: list[FakeServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    gateway = start(experts_yaml(servers[0]))
    assert ask(gateway.url, "quiet", "").status_code == 200
    assert ask(gateway.url, "recorded").status_code == 200
    seen.request("recorded")
    assert not int(servers[0].headers[0]["traceparent"][-2:], 16) & 1
    assert {span.trace for span in seen.spans} == {TRACE}


def test_the_genai_metrics_have_what_the_requests_were(
    seen: Receiver, start: Start, servers: list[FakeServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    servers[0].behaviour = status(503)
    gateway = start(experts_yaml(*servers[:2]))
    assert ask(gateway.url, "one").status_code == 200
    assert ask(gateway.url, "two", stream=True).status_code == 200
    assert ask(gateway.url, "three", model=PROMPT).status_code == 404
    model = {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "model-two", "gen_ai.response.model": "model-two",
    }  # fmt: skip

    def told(name: str, **more: str) -> tuple[int, float]:
        said = frozenset({**model, **more}.items())
        return seen.metrics.get((name, said), (0, 0.0))

    assert seen.wait(lambda _: told("gen_ai.client.operation.duration")[0] == 2)
    tokens = {kind: told("gen_ai.client.token.usage", **{"gen_ai.token.type": kind}) for kind in ("input", "output")}
    assert tokens == {"input": (2, 22.0), "output": (2, 8.0)}
    assert told("gen_ai.server.time_to_first_token")[0] == 1
    assert told("gen_ai.server.time_per_output_token")[0] == 1
    assert not seen.spans
    assert servers[1].headers[0]["traceparent"] == RECORDED  # untraced, it passes
    assert not [body for body in seen.sent if PROMPT.encode() in body or b"127.0.0.1" in body]


def test_a_receiver_that_is_down_is_no_matter_to_requests(
    start: Start, servers: list[FakeServer], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in {**EXPORTS, "OTEL_BSP_MAX_QUEUE_SIZE": "8", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")  # nobody listens there
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")  # second: then what it had is given up
    gateway = start(experts_yaml(servers[0]))
    for i in range(40):
        assert ask(gateway.url, f"req-{i}").status_code == 200
    assert len({headers["traceparent"] for headers in servers[0].headers}) == 40
    assert gateway.settled("moe_requests_total", 40)
    assert not [record for record in caplog.records if record.name == "moe_gateway" and record.exc_info]


def test_a_reload_goes_on_with_the_same_exporter(
    seen: Receiver, start: Start, servers: list[FakeServer], tmp_path: Path
) -> None:
    config = tmp_path / "experts.yaml"
    config.write_text(experts_yaml(servers[0]))
    before = exporters()
    gateway = start(config.read_text(), config=config)
    ours = exporters() - before
    assert ours
    config.write_text(experts_yaml(servers[0], extra="router: {confidence_floor: 0.4}"))
    assert client().post(f"{gateway.url}/admin/reload").status_code == 200
    assert ask(gateway.url, "req-1").status_code == 200
    assert len(seen.request("req-1")) == 3
    assert exporters() - before == ours


def exporters() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("Otel")}


def test_what_is_not_sent_yet_is_sent_at_the_end_by_each_of_several_processes(
    servers: list[FakeServer], tmp_path: Path
) -> None:
    config = tmp_path / "experts.yaml"
    config.write_text(experts_yaml(servers[0]))
    with receiver() as seen:
        late = {
            "OTEL_BSP_SCHEDULE_DELAY": "600000",
            "OTEL_METRIC_EXPORT_INTERVAL": "600000",
            "OTEL_SERVICE_NAME": "ours",
        }
        late |= {"MOE_GATEWAY_LOG_FORMAT": "console", "MOE_GATEWAY_LOG_LEVEL": "info"}
        arguments = ("--config", str(config), "--state", str(tmp_path / "state"), "--processes", "2")
        environment = {**late, "OTEL_EXPORTER_OTLP_ENDPOINT": seen.url}
        with serve(*arguments, environment=environment) as command:
            for i in range(24):
                assert ask(command.url, f"req-{i}", "").status_code == 200
            assert not seen.sent
            command.process.send_signal(signal.SIGTERM)
            assert command.process.wait(STARTING) == 0
        assert len([span for span in seen.spans if span.kind == "server"]) == 24
        assert {span.service["service.name"] for span in seen.spans} == {"ours"}
        assert len({span.service["service.instance.id"] for span in seen.spans}) == 2
        up = {headers["traceparent"].split("-")[2] for headers in servers[0].headers}
        assert up == {span.id for span in seen.spans if span.kind == "client"}
        lines = [line for line in command.screen if " 200 ok " in line]
        assert {match[1] for line in lines if (match := re.search(r"INFO +\[(\d)\]", line))} == {"0", "1"}
        traces = {match[1] for line in lines if (match := re.search("trace_id=([0-9a-f]+)", line))}
        assert traces == {span.trace for span in seen.spans}


def test_off_it_passes_on_what_the_client_said_and_loads_nothing(start: Start, servers: list[FakeServer]) -> None:
    gateway = start(experts_yaml(servers[0]))
    assert ask(gateway.url, "req-1").status_code == 200
    up = servers[0].headers[-1]
    assert (up["traceparent"], up["tracestate"]) == (RECORDED, STATE)


def test_off_nothing_that_traces_is_loaded_by_all_that_serves() -> None:
    """FastAPI itself loads OpenTelemetry's interface where it is installed; what records and exports is ours to load."""
    program = (
        "import sys, gateway.serving, gateway.dataplane; from gateway import tracing; print(tracing.from_environment({}), "
        "[n for n in sys.modules if n.startswith(('opentelemetry.sdk', 'opentelemetry.exporter', 'gateway.tracing.'))])"
    )
    told = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert told.strip() == "None []"
