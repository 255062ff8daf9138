from __future__ import annotations

from dataclasses import replace

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.exchange import Exchange, Outcome
from gateway.ledger.row import row_of
from gateway.receipt import Receipt
from gateway.recent import Recent
from gateway.usage import Usage
from gateway.weighed import Weighed
from router.decision import Candidate, Query, Rules
from tests.fakes.clock import Clock
from tests.fakes.memory import decision, experts_file

EXPERTS = experts_file({"coder": {"price": {"input": 1.0, "output": 2.0}}, "general": {}}).experts
PROMPT = "the prompt that is nobody's business"
RULES = Rules("auto", 0.02, 0.55, "general", {"static": 0.9})
CANDIDATES = (
    Candidate("coder", 0.41234, 1.25),
    Candidate("general", None, None, "context window of 10 tokens", True, "window"),
)


def finished(request_id: str = "req-1", caller: str = "team-a", status: int = 200, expert: str = "coder") -> Exchange:
    """Decided for coder, answered by `expert`."""
    exchange = Exchange(request_id, "chat.completions", caller=caller, stream=True)
    exchange.query = Query(PROMPT, requested_model="auto")
    exchange.decision = replace(decision("coder", "general"), rules=RULES, candidates=CANDIDATES)
    exchange.passed_over = ("coder", "asleep")
    if expert != "coder":
        exchange.end_attempt(exchange.attempt("coder", "coder-0"), Outcome.TIMEOUT)
    exchange.begin(expert, EXPERTS[expert])
    attempt = exchange.attempt(expert, f"{expert}-0")
    exchange.token()
    exchange.usage = Usage(8, 3, 4, 1)
    exchange.end_attempt(attempt, Outcome.OK)
    exchange.finish(Outcome.OK, status)
    return exchange


def test_a_receipt_tells_what_the_headers_told_and_what_it_came_to() -> None:
    recent = Recent()
    recent.observe(finished(expert="general"))
    receipt = recent.of("team-a", "req-1")
    assert receipt is not None
    told = msgspec.json.decode(msgspec.json.encode(receipt))
    assert (told["object"], told["id"], told["caller"], told["status"], told["outcome"]) == (
        "receipt", "req-1", "team-a", 200, "ok"
    )  # fmt: skip
    assert told["decision"] == {
        "requested": "auto", "expert": "general", "model": "model-of-general", "domain": "general", "confidence": 0.9,
        "probabilities": {"general": 0.9, "code": 0.1}, "reason": "fallback", "stage": "transformer", "route_ms": 1.2,
        "why": {
            "chosen": "coder", "policy": "auto", "tolerance": 0.02, "confidence_floor": 0.55, "fallback": "general",
            "sure_from": {"static": 0.9}, "doubt": None, "language": "", "previous": None, "switched": None,
            "passed_over": "asleep", "left_out": 0,
            "experts": [
                {"id": "coder", "expected_quality": 0.4123, "price": 1.25, "price_estimated": False, "cause": None,
                 "refused": None},
                {"id": "general", "expected_quality": None, "price": None, "price_estimated": True,
                 "cause": "window", "refused": "context window of 10 tokens"},
            ],
        },
    }  # fmt: skip
    assert [(a["replica"], a["outcome"]) for a in told["attempts"]] == [("coder-0", "timeout"), ("general-0", "ok")]
    assert told["usage"] == {"input": 8, "cached_input": 3, "output": 4, "reasoning": 1}
    assert told["timings"]["ttft"] <= told["timings"]["seconds"]
    assert told["timings"]["overhead"] <= told["timings"]["seconds"]
    assert told["started_at"] <= told["finished_at"]
    assert PROMPT not in str(told)


def test_the_ledger_tells_the_same_and_of_rows_from_before_no_why() -> None:
    recent, exchange = Recent(), finished()
    recent.observe(exchange)
    kept = recent.of("team-a", "req-1")
    assert kept is not None
    assert kept.decision is not None
    row = row_of(exchange, 1, 1) | {"at": kept.finished_at}
    assert Receipt.of(row | {"why": Weighed.decoded(Weighed.of(row["why"]).encoded())}) == kept
    of_before = Receipt.of(row | {"why": None})
    assert of_before.decision == msgspec.structs.replace(kept.decision, probabilities=None, why=None)
    assert msgspec.structs.replace(of_before, decision=kept.decision) == kept


def test_a_request_that_was_never_decided_has_a_receipt_too() -> None:
    recent, exchange = Recent(), Exchange("req-2", "chat.completions")
    exchange.error_code = "invalid_request"
    exchange.finish(Outcome.CLIENT_ERROR, 400)
    recent.observe(exchange)
    receipt = recent.of("anonymous", "req-2")
    assert receipt is not None
    assert (receipt.decision, receipt.usage, receipt.attempts, receipt.cost.usd) == (None, None, [], None)
    assert receipt.error_code == "invalid_request"


def test_what_it_cost_is_set_against_what_it_would_have_cost() -> None:
    row = row_of(finished(), 1, 1)
    costs = {"cost_usd": 0.25, "estimated_usd": 0.25, "baseline_usd": 0.75, "dearest_usd": 1.0}
    assert Receipt.of(row | costs).cost.saved_usd == 0.25
    assert Receipt.of(row | costs | {"cost_usd": None, "estimated_usd": None}).cost.saved_usd is None
    assert Receipt.of(row | costs | {"baseline_usd": None}).cost.saved_usd is None
    decided = Receipt.of(row | {"confidence": 0.123456}).decision
    assert decided is not None
    assert decided.confidence == 0.1235  # as the header says it


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.integers(0, 4)), max_size=30),
    st.integers(1, 4),
)
def test_the_latest_of_each_are_kept_and_neither_too_many_nor_too_old_ones(
    finished_then: list[tuple[str, str, int]], most: int
) -> None:
    clock = Clock(0.0)
    recent, told = Recent(most, 10.0, clock), []
    for number, (caller, request_id, pause) in enumerate(finished_then):
        clock.now += pause
        recent.observe(finished(request_id, caller, number))
        told.append((caller, request_id, clock.now, number))
    last = {(caller, request_id): (at, number) for caller, request_id, at, number in told}
    newest = sorted(last, key=lambda key: last[key][1])[-most:]
    alive = {key: last[key][1] for key in newest if last[key][0] > clock.now - 10.0}
    for caller in "abc":
        for request_id in "xyz":
            receipt = recent.of(caller, request_id)
            assert (receipt and receipt.status) == alive.get((caller, request_id))
    for request_id in "xyz":
        receipt = recent.of(None, request_id)
        numbers = [number for (_, its), number in alive.items() if its == request_id]
        assert (receipt and receipt.status) == max(numbers, default=None)


def test_what_is_too_old_is_told_no_more_though_nothing_came_after_it() -> None:
    clock = Clock(0.0)
    recent = Recent(5, 10.0, clock)
    recent.observe(finished())
    clock.now = 10.0
    assert recent.of("team-a", "req-1") is recent.of(None, "req-1") is None
