from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from gateway.exchange import Exchange, Outcome
from gateway.ledger.database import connected
from gateway.ledger.row import MAX_PROMPT, row_of
from gateway.ledger.store import Store
from gateway.ledger.tables import requests
from gateway.usage import Usage
from gateway.weighed import Weighed
from router.decision import Decision, Query, Scores
from router.experts import parse_experts
from tests.fakes.ledgers import look

SECRET = "the prompt nobody may see"
EXPERTS = """version: 1
experts:
  coder:
    model: org/coder-7b
    domains: {code: 0.9}
    upstream: {vllm: [http://10.1.2.3:8000/v1]}
    price: {input: 1.0, output: 2.0}
"""
SCORES = Scores({"code": 0.9, "math": 0.1}, "static")


def exchange(prompt: str = SECRET, model: str = "auto", chosen: str = "coder", known: bool = True) -> Exchange:
    """A stream that coder answered after another could not be reached."""
    made = Exchange("req-7", "chat.completions", caller="team-a", stream=True)
    made.query = Query(prompt, requested_model=model)
    if not known:
        made.error_code = "model_not_found"
        made.finish(Outcome.CLIENT_ERROR, 404)
        return made
    made.decision = Decision(chosen, "best", (), SCORES, (), "artifact", 0.0015)
    made.end_attempt(made.attempt("coder", "coder-1"), Outcome.CONNECT_ERROR)
    made.begin("coder", parse_experts(EXPERTS).experts["coder"])
    attempt = made.attempt("coder", "coder-0")
    made.token()
    made.usage = Usage(input=8, cached_input=3, output=4, reasoning=1)
    made.end_attempt(attempt, Outcome.OK)
    made.finish(Outcome.OK, 200)
    return made


def test_a_row_has_every_column_and_what_the_exchange_was() -> None:
    row = row_of(exchange(), 5, 6)
    assert list(row) == [column.name for column in requests.c]
    assert datetime.now(UTC) - row["at"] < timedelta(hours=1)
    assert [(a["replica"], a["outcome"]) for a in json.loads(row["attempts"])] == [
        ("coder-1", "connect_error"),
        ("coder-0", "ok"),
    ]
    told = {name: row[name] for name in ("writer", "number", "id", "caller", "status", "outcome", "requested", "model")}
    assert told == {
        "writer": 5,
        "number": 6,
        "id": "req-7",
        "caller": "team-a",
        "status": 200,
        "outcome": "ok",
        "requested": "auto",
        "model": "org/coder-7b",
    }
    tokens = [row[f"{kind}_tokens"] for kind in ("input", "cached_input", "output", "reasoning")]
    assert (tokens, row["domain"], row["confidence"], row["route_ms"]) == ([8, 3, 4, 1], "code", 0.9, 1.5)


def test_money_is_that_of_the_exchanges_charge() -> None:
    made = exchange()
    row = row_of(made, 1, 1)
    charge = made.charge
    assert (row["cost_usd"], row["estimated_usd"]) == (charge.cost, charge.estimated)
    assert (row["baseline_usd"], row["dearest_usd"]) == (charge.baseline, charge.dearest)
    assert row["energy_wh"] == charge.energy_wh


def test_the_reason_is_fallback_where_another_answered() -> None:
    assert row_of(exchange(), 1, 1)["reason"] == "best"
    assert row_of(exchange(chosen="general"), 1, 1)["reason"] == "fallback"


def test_neither_prompts_nor_addresses_are_in_it() -> None:
    text = json.dumps(row_of(exchange(), 1, 1), default=str)
    assert SECRET not in text
    assert "10.1.2.3" not in text
    assert row_of(exchange(), 1, 1, prompts=True)["prompt"] == SECRET


def test_why_is_only_held_until_it_is_written_and_then_it_is_text(url: str) -> None:
    made = exchange()
    row = row_of(made, 1, 1)
    assert row["why"][0] is made.decision  # what a request waits for makes nothing of it
    store = Store(url)
    assert store.write([row, row_of(exchange(known=False), 1, 2)]) == 0
    store.close()
    (kept,), (nothing,) = look(url, "SELECT why FROM requests ORDER BY number")
    assert (kept[:8], nothing) == ('["coder"', None)
    assert SECRET not in kept
    engine = connected(url)
    with engine.begin() as connection:
        read = connection.execute(select(requests.c.why).order_by(requests.c.number)).scalars().all()
    engine.dispose()
    assert read == [Weighed.of(row["why"]), None]


def test_the_chosen_expert_that_was_passed_over_is_told() -> None:
    made = exchange()
    assert row_of(made, 1, 1)["why"] == (made.decision, None)
    made.passed_over = ("general", "asleep")
    assert row_of(made, 1, 1)["why"] == (made.decision, "asleep")


def test_a_model_that_is_none_is_not_kept_whatever_stands_in_its_place() -> None:
    assert row_of(exchange(model="sk-a-key-in-the-wrong-field"), 1, 1)["requested"] == "sk-a-key-in-the-wrong-field"
    row = row_of(exchange(model="sk-a-key-in-the-wrong-field", known=False), 1, 1, prompts=True)
    assert "sk-a-key" not in json.dumps(row, default=str)
    assert (row["status"], row["error_code"], row["expert"], row["reason"]) == (404, "model_not_found", None, None)


@given(prompt=st.text(max_size=100))
@settings(max_examples=25)
def test_a_kept_prompt_is_as_it_was_but_for_what_postgresql_takes_of_no_text(prompt: str) -> None:
    kept = row_of(exchange(prompt * 500), 1, 1, prompts=True)["prompt"]
    assert kept == (prompt * 500)[:MAX_PROMPT].replace("\0", "\ufffd")


@pytest.mark.parametrize("prompts", [False, True])
def test_prompts_are_in_the_database_only_where_asked_for(url: str, prompts: bool) -> None:
    store = Store(url)
    assert store.write([row_of(exchange("a \0 b 🦆"), 1, 1, prompts)]) == 0
    store.close()
    assert look(url, "SELECT prompt FROM requests") == [("a \ufffd b 🦆" if prompts else None,)]
