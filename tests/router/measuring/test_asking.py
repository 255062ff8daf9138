from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from router.dataset import OWN_SET, Row, read_rows
from router.decision import Asked, Query
from router.measuring.asking import Asking, asking_of, text_query

RETRY = "1 validation error: age. Fix the errors and try again."


def read(tmp_path: Path, **raw: Any) -> Asking:
    path = tmp_path / "row.jsonl"
    path.write_text(json.dumps({"domain": "code", **raw}), "utf-8")
    (row,) = read_rows(path)
    return asking_of(row)


def said(*messages: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in messages]


def test_answers_and_tool_results_count_for_the_size_before_a_turn(tmp_path: Path) -> None:
    messages = said(
        ("system", "s" * 40), ("user", "u" * 8), ("assistant", "a" * 400), ("tool", "t" * 80), ("user", "why")
    )
    asking = read(tmp_path, messages=messages)
    assert asking.query.asked == (Asked(10, 12), Asked(132, 132))
    assert (asking.query.text, asking.query.earlier, asking.query.continues) == ("why", ("u" * 8,), False)
    assert [(moment.text, moment.tokens) for moment in asking.moments] == [("u" * 8, 12), ("why", 132)]


def test_what_goes_on_with_an_answer_is_no_turn_and_has_no_label(tmp_path: Path) -> None:
    messages = said(("user", "write"), ("assistant", "{"), ("user", RETRY), ("assistant", "{}"), ("user", "now sort"))
    asking = read(tmp_path, messages=messages, turn_domains=["code", "bio", "math"])
    assert [moment.text for moment in asking.moments] == ["write", "now sort"]
    assert asking.labels == ("code", "math")
    assert read(tmp_path, messages=messages[:3]).query.continues
    assert read(tmp_path, messages=[*messages, *said(("tool", "5"))]).query.continues


def test_a_turn_that_says_nothing_is_none_whatever_the_labels(tmp_path: Path) -> None:
    picture = [{"type": "image_url", "image_url": {"url": "x"}}]
    messages = said(("user", "look"), ("user", picture), ("user", "well?"))
    asking = read(tmp_path, messages=messages, turn_domains=["code", "code", "math"])
    assert ([moment.text for moment in asking.moments], asking.labels) == (["look", "well?"], ("code", "math"))
    assert [moment.needs for moment in asking.moments] == [frozenset(), frozenset({"vision"})]


def test_a_long_prompt_is_sent_whole(tmp_path: Path) -> None:
    asking = read(tmp_path, prompt="word " * 4000)
    assert asking.query.tokens == 5000
    assert asking.moments == (asking.query,)


@pytest.mark.parametrize(
    "raw",
    [
        {"prompt": "half \ud800"},
        {"messages": [{"role": "user", "content": "half \ud800"}]},
        {"messages": [{"role": "user", "content": None}, {"role": "user", "content": "hi"}]},
        {"messages": [{"content": "no role"}, {"role": "user", "content": "hi"}]},
    ],
    ids=str,
)
def test_what_could_not_be_sent_is_asked_by_the_users_turns(tmp_path: Path, raw: dict[str, Any]) -> None:
    assert read(tmp_path, **raw).query.text in ("half \ud800", "hi")


def test_a_row_without_messages_is_asked_by_its_turns() -> None:
    assert asking_of(Row("b", "code", turns=("a", "b"))).query == Query(
        "b", tokens=0, earlier=("a",), asked=(Asked(0, 0), Asked(0, 0))
    )
    assert asking_of(Row("some text", "code")).query == text_query("some text")


def test_every_turn_of_the_own_set_has_a_label() -> None:
    askings = [(row, asking_of(row)) for row in read_rows(OWN_SET) if len(row.turns) > 1]
    assert len(askings) > 60
    for row, asking in askings:
        assert len(asking.labels) == len(asking.moments), row.id
        assert asking.labels[-1] == row.domain
