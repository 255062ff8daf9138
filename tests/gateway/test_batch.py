"""Batch routing: one answer for every line that is not blank, in order, whatever the other lines are."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.batch import CHUNK, route_lines
from tests.fakes.memory import experts_file, router_of

FILE = experts_file(
    {
        "coder": {"domains": {"code": 0.9}, "context_window": 20},
        "general": {"domains": {"general": 0.9}, "context_window": 20},
    }
)
ROUTER = router_of(FILE)
KEYS = {"id", "expert", "domain", "confidence", "probabilities", "stage", "reason", "latency_ms"}
IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]


def routed(lines: Iterable[str], model: str = "auto") -> tuple[list[dict[str, Any]], int]:
    """The answers, and how many lines are said to have failed. Written as a file in UTF-8 would be."""
    raw = io.BytesIO()
    answers = io.TextIOWrapper(raw, encoding="utf-8")
    failed = route_lines(ROUTER, lines, answers, model)
    answers.flush()
    return [json.loads(line) for line in raw.getvalue().decode().splitlines()], failed


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


# Each kind of line: what it says beside its id, and the expert that it goes to; None where it cannot be routed.
GOOD: list[tuple[dict[str, Any], str | None]] = [
    ({"prompt": "code please"}, "coder"),
    ({"prompt": "a general thing", "other": [1]}, "general"),
    ({"messages": user("code in wörds")}, "coder"),
    ({"messages": user("general")}, "general"),
]
BAD: list[tuple[dict[str, Any], str | None]] = [
    ({}, None),
    ({"prompt": " \n"}, None),
    ({"prompt": 5}, None),
    ({"messages": []}, None),
    ({"messages": "code"}, None),
    ({"messages": IMAGE}, None),
    ({"messages": user("code " * 50)}, None),
]
IDS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(st.characters(codec="utf-8"), max_size=8)
JUNK = ["", " ", "\t\n", "{", "nul", "[1]", '"code"', "7", "[" * 20_000]


@st.composite
def lines(draw: st.DrawFn) -> list[tuple[str, Any, str | None]]:
    """Lines, each with the id and the expert it should be answered with."""
    known = st.tuples(st.sampled_from(GOOD + BAD), st.just("none") | st.tuples(IDS))
    few = draw(st.lists(known | st.sampled_from(JUNK), max_size=8))
    drawn: list[tuple[str, Any, str | None]] = []
    for number, item in enumerate(few * draw(st.sampled_from([1, CHUNK // 5])), 1):
        if isinstance(item, str):
            drawn.append((item, number, None))
            continue
        (fields, expert), key = item
        named = {"id": key[0]} if isinstance(key, tuple) else {}
        drawn.append((json.dumps(named | fields), named.get("id", number), expert))
    return drawn


@given(lines())
def test_every_line_is_answered_in_order_whatever_the_others_are(drawn: list[tuple[str, Any, str | None]]) -> None:
    expected = [(key, expert) for line, key, expert in drawn if line.strip()]
    answers, failed = routed(line for line, _, _ in drawn)
    assert [(answer["id"], answer.get("expert")) for answer in answers] == expected
    assert failed == sum(expert is None for _, expert in expected)
    assert all(answer.keys() == (KEYS if "expert" in answer else {"id", "error"}) for answer in answers)


def test_an_answer_holds_the_decision() -> None:
    (answer,), failed = routed(['{"id": "a", "prompt": "code"}'])
    assert (answer["expert"], answer["domain"], answer["reason"], answer["stage"], failed) == (
        "coder", "code", "best", "transformer", 0,
    )  # fmt: skip
    assert answer["probabilities"]["code"] == answer["confidence"] > 0.9
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-3)


def test_a_line_is_called_by_its_number_blank_lines_counted() -> None:
    answers, _ = routed(["\n", '{"prompt": "code"}\n', "   \n", "{\n"])
    assert [answer["id"] for answer in answers] == [2, 4]


def test_a_line_may_hold_a_conversation() -> None:
    turns = [*user("code"), {"role": "assistant", "content": "general"}, *user("and then?")]
    answers, _ = routed([json.dumps({"messages": turns})])
    assert (answers[0]["expert"], answers[0]["domain"]) == ("coder", "code")


def test_an_over_long_line_spoils_no_other() -> None:
    long = json.dumps({"id": "long", "prompt": "code " * 1_000_000})
    longer = json.dumps({"id": "longer", "messages": user("code " * 1_000_000)})
    answers, failed = routed(['{"prompt": "code"}', long, longer, '{"prompt": "general"}'])
    assert [answer.get("expert") for answer in answers] == ["coder", None, None, "general"]
    for answer in answers[1:3]:
        assert "largest context window here is 20" in answer["error"]
    assert failed == 2


def test_a_pinned_model_answers_every_line_unclassified() -> None:
    answers, _ = routed(['{"prompt": "code"}', json.dumps({"messages": user("code")})], "general")
    assert [(a["expert"], a["reason"], a["stage"], a["domain"]) for a in answers] == [
        ("general", "pinned", "none", None)
    ] * 2


def test_a_chunk_is_answered_before_the_next_is_read() -> None:
    raw = io.BytesIO()
    answers = io.TextIOWrapper(raw, encoding="utf-8")
    seen: list[int] = []

    def slowly() -> Iterable[str]:
        for _ in range(CHUNK + 1):
            yield '{"prompt": "code"}'
            seen.append(len(raw.getvalue().splitlines()))

    route_lines(ROUTER, slowly(), answers)
    assert seen == [0] * (CHUNK - 1) + [CHUNK, CHUNK]


@pytest.mark.parametrize(
    "odd",
    [
        r'{"id": "odd", "messages": [{"role": "user", "content": "\ud800"}]}',
        '{"id": "odd", "messages": [{"role": "user", "content": "code", "seed": 99999999999999999999999}]}',
        '{"id": "odd", "messages": [{"role": "user", "content": "code", "x": %s}]}' % ("[" * 900 + "]" * 900),
        '{"id": "odd", "prompt": %s}' % ("9" * 5000),
        r'{"id": "\ud800", "prompt": "code"}',
    ],
    ids=["half a character", "a huge number", "deep nesting", "thousands of digits", "half a character as id"],
)
def test_json_that_few_can_read_spoils_no_other_line(odd: str) -> None:
    answers, _ = routed(['{"prompt": "code"}', odd, '{"prompt": "general"}'])
    assert len(answers) == 3
    assert [answers[0].get("expert"), answers[2].get("expert")] == ["coder", "general"]
