from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from gateway import __version__
from gateway.costmetrics import ANONYMOUS, NONE, OTHER
from gateway.exchange import Attempt, Exchange, Outcome, Phase
from gateway.metrics import LIMITED, Metrics
from gateway.pool import Pool
from gateway.processmetrics import REFUSALS
from gateway.replica import Replica, State
from gateway.upstreams.base import FixedAddress
from gateway.usage import Usage
from router.decision import Decision, Reason, Switch
from router.experts import Expert
from router.prices import DEAREST, Price
from tests.fakes.memory import decision, experts_file, router_of

FILE = experts_file(
    {
        "coder": {"domains": {"code": 0.9}, "price": {"input": 0.15, "output": 0.6, "cached_input": 0.07}},
        "a-general-one": {"price": {"input": 2.5, "output": 10.0}},
        "unpriced": {},
        "stand-in": {"upstream": {"embedded": "smollm2"}, "price": {"input": 0.02, "output": 0.1}},
    },
    replicas=2,
)
REASONS: tuple[Reason, ...] = get_args(Reason)
KINDS = ("input", "cached_input", "output", "reasoning")
REPLICAS = [f"{expert}-{i}" for expert in FILE.experts for i in range(2)]
CODE_OF = {status: str(status) for status in (200, 400, 429, 499, 502, 503)} | {299: "2xx", 418: "4xx", 599: "5xx"}
ENDED = st.sampled_from(list(Outcome))
COUNTS = st.integers(0, 1_000_000)
NOISE = st.text(min_size=1, max_size=5).map(lambda text: "NOISE" + text)  # what a client may choose: never a label
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    output = draw(COUNTS)
    return Usage(draw(COUNTS), draw(COUNTS), output, draw(st.integers(0, output)))


@st.composite
def decisions(draw: st.DrawFn) -> Decision:
    code = draw(st.floats(0, 1))
    domains = draw(st.sampled_from([{}, {"code": code, "general": 1 - code}]))
    reason: Reason = draw(st.sampled_from(REASONS))
    return decision(draw(st.sampled_from(list(FILE.experts))), reason=reason, domains=domains)


@st.composite
def exchanges(draw: st.DrawFn) -> Exchange:
    """A finished exchange, as any client and any upstream could have made it."""
    tried = draw(st.lists(st.sampled_from(REPLICAS), max_size=4))
    attempts = [Attempt(name.rpartition("-")[0], name, 100.0, draw(ENDED), 0.1) for name in tried]
    expert_id = attempts[-1].expert if attempts else None
    tokens = (
        sorted(draw(st.lists(st.floats(100, 200), min_size=2, max_size=2))) if draw(st.booleans()) else [None, None]
    )
    exchange = Exchange(
        id=draw(NOISE),
        endpoint="chat.completions",
        started=100.0,
        caller=draw(NOISE),
        stream=draw(st.booleans()),
        phase=draw(st.sampled_from(list(Phase))),
        decision=draw(st.none() | decisions()) if not attempts else draw(decisions()),
        expert_id=expert_id,
        expert=FILE.experts[expert_id] if expert_id else None,
        attempts=attempts,
        usage=draw(st.none() | usages()) if attempts else None,
        error_code=draw(NOISE),
        first_token=tokens[0],
        last_token=tokens[1],
        waited=draw(st.floats(0, 300)),
    )
    exchange.finish(draw(ENDED), draw(st.sampled_from(list(CODE_OF))))
    return exchange


def series(metrics: Metrics) -> Series:
    """Every sample of the exposition, as Prometheus itself would read it."""
    metrics.refresh()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.exposition()[0].decode())
        for sample in family.samples
    }


def values(found: Series, name: str, **labels: str) -> Iterator[float]:
    return (v for (sample, own), v in found.items() if sample == name and labels.items() <= dict(own).items())


def total(found: Series, name: str, **labels: str) -> float:
    return sum(values(found, name, **labels))


def observed(*finished: Exchange) -> Series:
    metrics = Metrics()
    for exchange in finished:
        metrics.observe(exchange)
    return series(metrics)


def answered(expert_id: str, usage: Usage | None = None, phase: Phase = Phase.STREAMING) -> Exchange:
    """An exchange that `expert_id` answered, not yet finished."""
    return Exchange(
        "r", "chat.completions", decision=decision(expert_id), expert_id=expert_id, expert=FILE.experts[expert_id],
        usage=usage, phase=phase,
    )  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.lists(exchanges(), max_size=6))
def test_every_exchange_is_counted_once(finished: list[Exchange]) -> None:
    found = observed(*finished)
    assert total(found, "moe_requests_total") == len(finished)
    assert total(found, "moe_request_duration_seconds_count") == len(finished)
    assert total(found, "moe_gateway_overhead_seconds_count") == len(finished)
    assert total(found, "moe_routing_decisions_total") == sum(e.decision is not None for e in finished)
    assert total(found, "moe_upstream_attempts_total") == sum(len(e.attempts) for e in finished)
    gone = Counter(e.phase for e in finished if e.outcome is Outcome.CANCELLED)
    for phase in Phase:
        assert total(found, "moe_client_disconnects_total", phase=phase) == gone[phase]
    for code, count in Counter(CODE_OF[e.status] for e in finished).items():
        assert total(found, "moe_requests_total", code=code) == count


@settings(max_examples=25, deadline=None)
@given(st.lists(exchanges(), max_size=6))
def test_every_token_is_counted_and_priced_to_the_micro_dollar(finished: list[Exchange]) -> None:
    found = observed(*finished)
    for kind in KINDS:
        expected = sum(getattr(e.usage, kind) for e in finished if e.usage)
        assert total(found, "moe_tokens_total", kind=kind) == expected
    for expert_id, expert in FILE.experts.items():
        usages_of = [e.usage for e in finished if e.usage and e.expert_id == expert_id]
        cost = total(found, "moe_cost_usd_total", expert=expert_id)
        assert abs(Fraction(cost) - sum(exact(u, expert.token_price) for u in usages_of)) < Fraction(1, 1_000_000)
        unpriced = total(found, "moe_unpriced_requests_total", expert=expert_id)
        mine = [e for e in finished if e.expert_id == expert_id and e.cost is None]
        said = [e for e in mine if e.outcome is Outcome.OK or e.first_token is not None]
        assert unpriced == sum(bool(e.usage or (e.attempts and e in said)) for e in mine)


def exact(usage: Usage, price: Price | None) -> Fraction:
    if price is None:
        return Fraction(0)
    cached = price.input if price.cached_input is None else price.cached_input
    input_, output = usage.input * Fraction(price.input), usage.output * Fraction(price.output)
    return (input_ + usage.cached_input * Fraction(cached) + output) / 1_000_000


@settings(max_examples=25, deadline=None)
@given(st.lists(exchanges(), max_size=6))
def test_a_fallback_is_each_move_to_another_expert(finished: list[Exchange]) -> None:
    moves = Counter(
        (before.expert, after.expert, str(before.outcome))
        for e in finished
        for before, after in zip(e.attempts, e.attempts[1:], strict=False)
        if before.expert != after.expert
    )
    found = observed(*finished)
    assert total(found, "moe_fallbacks_total") == moves.total()
    for (left, to, reason), count in moves.items():
        assert total(found, "moe_fallbacks_total", from_expert=left, to_expert=to, reason=reason) == count


@settings(max_examples=25, deadline=None)
@given(st.lists(exchanges(), max_size=6))
def test_every_label_value_comes_from_experts_yaml_or_a_fixed_set(finished: list[Exchange]) -> None:
    experts = {*FILE.experts, NONE}
    domains = {*FILE.domain_names, NONE}
    allowed: dict[str, set[str]] = {
        "endpoint": {"chat.completions"},
        "expert": experts,
        "from_expert": experts,
        "to_expert": experts,
        "domain": domains,
        "replica": set(REPLICAS),
        "outcome": {*Outcome, "failed"},
        "reason": {*REASONS, *Outcome, *REFUSALS},
        "stage": {"transformer", "none"},
        "phase": set(Phase),
        "kind": {*KINDS, *Outcome, *LIMITED},
        "code": set(CODE_OF.values()),
        "baseline": {DEAREST},
        "key": {ANONYMOUS, OTHER},
        "part": {"classifier", "lost_cache"},
        "version": {__version__},
    }
    for _, labels in observed(*finished):
        for label, value in labels:
            assert label == "le" or value in allowed[label]


def test_an_exchange_that_reached_no_expert_is_counted_under_none() -> None:
    exchange = Exchange("r", "chat.completions")
    exchange.finish(Outcome.CLIENT_ERROR, 400)
    found = observed(exchange)
    labels = {"expert": NONE, "domain": NONE, "code": "400", "endpoint": "chat.completions"}
    assert total(found, "moe_requests_total", **labels) == 1
    assert total(found, "moe_tokens_total") == 0


@pytest.mark.parametrize("stream", [True, False])
def test_token_times_are_those_of_streams(stream: bool) -> None:
    exchange = answered("coder", Usage(input=1, output=5))
    exchange.stream, exchange.started, exchange.first_token, exchange.last_token = stream, 100.0, 100.25, 102.25
    exchange.finish(Outcome.OK, 200)
    found = observed(exchange)
    assert total(found, "moe_time_to_first_token_seconds_sum", expert="coder") == (0.25 if stream else 0)
    assert total(found, "moe_time_per_output_token_seconds_sum", expert="coder") == (0.5 if stream else 0)


def test_one_token_has_no_time_per_further_token() -> None:
    exchange = answered("coder", Usage(input=1, output=1))
    exchange.stream, exchange.first_token, exchange.last_token = True, exchange.started, exchange.started
    exchange.finish(Outcome.OK, 200)
    assert total(observed(exchange), "moe_time_per_output_token_seconds_count") == 0


@pytest.mark.parametrize(
    ("phase", "content", "outcome", "count"),
    [
        (Phase.STREAMING, True, Outcome.TRUNCATED, 1),
        (Phase.STREAMING, True, Outcome.OK, 0),
        (Phase.STREAMING, True, Outcome.CANCELLED, 0),
        (Phase.STREAMING, False, Outcome.STREAM_ERROR, 0),
        (Phase.WAITING, True, Outcome.TIMEOUT, 0),
    ],
)
def test_a_stream_error_is_a_failure_after_content(phase: Phase, content: bool, outcome: Outcome, count: int) -> None:
    exchange = answered("coder", phase=phase)
    exchange.first_token = exchange.last_token = exchange.started + 1 if content else None
    exchange.finish(outcome, 200)
    found = observed(exchange)
    assert total(found, "moe_stream_errors_total") == count
    assert total(found, "moe_stream_errors_total", expert="coder", kind=outcome) == count


@pytest.mark.parametrize("phase", list(Phase))
def test_a_client_that_left_is_counted_by_what_it_did_not_wait_for(phase: Phase) -> None:
    gone, stayed = answered("coder", phase=phase), answered("coder", phase=phase)
    gone.finish(Outcome.CANCELLED, 499)
    stayed.finish(Outcome.OK, 200)
    found = observed(gone, stayed)
    assert total(found, "moe_client_disconnects_total", endpoint="chat.completions", phase=phase) == 1
    assert total(found, "moe_client_disconnects_total") == 1


def test_waiting_for_others_is_no_overhead_of_ours() -> None:
    exchange = answered("coder")
    exchange.started, exchange.waited, exchange.finished = 100.0, 1.75, 102.0
    exchange.outcome, exchange.status = Outcome.OK, 200
    found = observed(exchange)
    assert total(found, "moe_gateway_overhead_seconds_sum") == 0.25
    assert total(found, "moe_request_duration_seconds_sum") == 2.0


@pytest.mark.parametrize("cause", get_args(Switch))
def test_a_switch_in_mid_conversation_is_counted_by_its_cause(cause: Switch) -> None:
    switched, stayed = answered("coder"), answered("coder")
    assert switched.decision is not None
    switched.decision = replace(switched.decision, switched=cause)
    for exchange in (switched, stayed):
        exchange.finish(Outcome.OK, 200)
    found = observed(switched, stayed)
    assert total(found, "moe_conversation_switches_total", cause=cause) == 1
    assert total(found, "moe_conversation_switches_total") == 1


def test_a_turn_is_one_for_which_the_router_knew_who_answered_before() -> None:
    first, next_one = answered("coder"), answered("coder")
    assert next_one.decision is not None
    next_one.decision = replace(next_one.decision, previous="coder")
    for exchange in (first, next_one):
        exchange.finish(Outcome.OK, 200)
    assert total(observed(first, next_one), "moe_conversation_turns_total") == 1


@pytest.mark.parametrize(
    ("outcome", "status", "code", "kind"),
    [
        (Outcome.REJECTED, 429, "upstream_rejected", "upstream"),
        (Outcome.REJECTED, 503, "upstream_rejected", "upstream"),
        (Outcome.REJECTED, 502, "upstream_rejected", None),  # our own key
        (Outcome.SERVER_ERROR, 503, "busy", "explanations"),
        (Outcome.SERVER_ERROR, 503, "upstream_server_error", None),
        (Outcome.OK, 200, None, None),
    ],
)
def test_who_is_told_to_come_back_later_is_counted_by_who_says_so(
    outcome: Outcome, status: int, code: str | None, kind: str | None
) -> None:
    exchange = answered("coder", phase=Phase.WAITING)
    exchange.error_code = code
    exchange.finish(outcome, status)
    found = observed(exchange)
    assert {k: total(found, "moe_rate_limited_total", kind=k) for k in LIMITED} == {
        k: float(k == kind) for k in LIMITED
    }


def test_a_queue_tells_to_come_back_later_where_it_is_full_or_takes_too_long() -> None:
    metrics = Metrics()
    for reason in ("full", "expired", "down", "asleep"):
        metrics.on_refused("coder", reason)
    found = series(metrics)
    assert total(found, "moe_queue_refused_total", expert="coder") == 4
    assert total(found, "moe_rate_limited_total", kind="queue") == 2


class Traced:
    id = "5bd66ef5095369c7b0d1f8f4bd33716a"

    def attempt(self, attempt: Attempt, expert: Expert | None) -> dict[str, str]:
        return {}


def test_a_histogram_leads_to_a_trace_where_there_is_one() -> None:
    metrics = Metrics()
    for trace in (None, Traced()):
        exchange = answered("coder", Usage(input=1, output=5))
        exchange.stream, exchange.trace, exchange.finished = True, trace, exchange.started + 4
        exchange.first_token, exchange.last_token = exchange.started + 1, exchange.started + 3
        exchange.outcome, exchange.status = Outcome.OK, 200
        metrics.observe(exchange)
    text = metrics.exposition("application/openmetrics-text")[0].decode()
    found = [
        (sample.name, sample.labels["le"], sample.exemplar.labels, sample.exemplar.value)
        for family in read_openmetrics(text)  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.exemplar
    ]
    trace_id = {"trace_id": Traced.id}
    assert found == [
        ("moe_request_duration_seconds_bucket", "5.12", trace_id, 4.0),
        ("moe_time_to_first_token_seconds_bucket", "1.0", trace_id, 1.0),
    ]


def test_a_domain_that_the_request_gave_is_no_confidence_of_ours() -> None:
    given = answered("coder")
    assert given.decision is not None
    assert given.decision.scores is not None
    given.decision = replace(given.decision, scores=replace(given.decision.scores, stage="none"))
    given.finish(Outcome.OK, 200)
    found = observed(given)
    assert total(found, "moe_routing_confidence_count") == 0
    assert total(found, "moe_routing_decisions_total", stage="none") == 1


def test_what_runs_is_described() -> None:
    metrics = Metrics()
    up = Replica("a-general-one-0", FixedAddress("http://a.test/v1"))
    down = Replica("coder-1", FixedAddress("http://b.test/v1"), up=False)
    metrics.describe(router_of(FILE), [up, down], tuple(FILE.experts))
    metrics.hold("coder", 3)
    found = series(metrics)
    assert total(found, "moe_replica_up", expert="a-general-one", replica="a-general-one-0") == 1
    assert list(values(found, "moe_replica_up", expert="coder", replica="coder-1")) == [0]
    assert list(values(found, "moe_requests_in_flight", expert="coder")) == [3]
    assert list(values(found, "moe_requests_in_flight", expert="unpriced")) == [0]
    assert list(values(found, "moe_config_info", hash="d1")) == [1]
    assert list(values(found, "moe_router_info", encoder="words")) == [1]
    assert list(values(found, "moe_build_info", version=__version__)) == [1]
    assert total(found, "moe_config_last_success_timestamp_seconds") > 0
    down.up = True
    assert list(values(series(metrics), "moe_replica_up", replica="coder-1")) == [1]
    assert b"b.test" not in metrics.exposition()[0]


def test_which_experts_servers_are_not_as_the_file_says_is_told_of_those_that_run() -> None:
    metrics = Metrics()

    class Found:
        def __init__(self, **mismatched: bool) -> None:
            self.now = mismatched

        def mismatched(self) -> dict[str, bool]:
            return self.now

    found = Found(coder=False, unpriced=True)
    metrics.describe(router_of(FILE), [], tuple(FILE.experts), served=found)
    assert [total(series(metrics), "moe_expert_mismatch", expert=e) for e in ("coder", "unpriced")] == [0, 1]
    found.now = {"coder": True, "unpriced": True}
    assert [total(series(metrics), "moe_expert_mismatch", expert=e) for e in ("coder", "unpriced")] == [1, 1]
    metrics.describe(router_of(FILE), [], tuple(FILE.experts), served=Found(coder=False))
    assert list(values(series(metrics), "moe_expert_mismatch", expert="coder")) == [0]
    assert list(values(series(metrics), "moe_expert_mismatch", expert="unpriced")) == []


def test_each_replica_is_in_one_state() -> None:
    metrics = Metrics()
    replica = Replica("a-general-one-0", FixedAddress("http://a.test/v1"))
    metrics.describe(router_of(FILE), [replica], tuple(FILE.experts))

    def states() -> list[str]:
        found = series(metrics)
        assert len(list(values(found, "moe_replica_state", expert="a-general-one"))) == len(State)
        return [s for s in State if total(found, "moe_replica_state", replica="a-general-one-0", state=s) == 1]

    assert states() == ["up"]
    replica.slow = True
    assert states() == ["slow"]
    replica.up = False
    assert states() == ["down"]


def test_what_happens_in_a_pool_is_counted() -> None:
    metrics = Metrics()
    file = experts_file({"coder": {"max_in_flight": 1}, "other": {}})
    pool = Pool(file, {}, metrics.hold, metrics)
    metrics.describe(router_of(file), pool.all(), tuple(file.experts))
    metrics.on_queue("coder", 3)
    metrics.on_wait("coder", 0.5)
    metrics.on_wait("coder", 1.5)
    metrics.on_refused("coder", "full")
    for _ in range(3):
        with pool.holding("coder", pool.replicas["coder"][0]) as place:
            place.note(Outcome.TIMEOUT)
    found = series(metrics)
    assert list(values(found, "moe_requests_queued", expert="coder")) == [3]
    assert list(values(found, "moe_requests_queued", expert="other")) == [0]
    assert total(found, "moe_queue_seconds_count", expert="coder") == 2
    assert total(found, "moe_queue_seconds_sum", expert="coder") == 2
    assert total(found, "moe_queue_refused_total", expert="coder", reason="full") == 1
    assert total(found, "moe_replica_ejections_total", expert="coder", replica="coder-0", cause="failures") == 1
    assert total(found, "moe_replica_state", replica="coder-0", state="ejected") == 1
