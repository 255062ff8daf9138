from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.ledger import urls
from gateway.ledger.asked import EVER
from gateway.ledger.database import connected, migrate
from gateway.ledger.tables import requests
from gateway.traffic import Traffic, read_ledger, read_lines
from tests.fakes.ledgers import row

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def lines(*said: Any) -> list[bytes]:
    return [one if isinstance(one, bytes) else json.dumps(one).encode() + b"\n" for one in said]


def test_prompts_and_conversations_are_read_and_called_by_their_ids() -> None:
    talk = [
        {"role": "user", "content": "Prove it."},
        {"role": "assistant", "content": "…"},
        {"role": "user", "content": "Why?"},
    ]
    read = read_lines(
        lines({"prompt": "hello", "model": "x"}, b"\n", {"id": "t", "messages": talk}), "p.jsonl", "auto:cheap"
    )
    assert read.problems == ()
    assert [prompt.id for prompt in read.prompts] == ["1", "t"]
    assert [prompt.query.text for prompt in read.prompts] == ["hello", "Why?"]
    assert read.prompts[1].query.earlier == ("Prove it.",)
    assert {prompt.query.requested_model for prompt in read.prompts} == {"auto:cheap"}
    assert read.prompts[0].answered is None


def test_a_bad_line_is_told_with_its_number_and_the_others_are_kept() -> None:
    read = read_lines(
        lines(b"{\n", {"prompt": " "}, [], {"x": 1}, {"messages": 3}, b"\xff\n", {"prompt": "good"}), "p.jsonl"
    )
    assert [prompt.query.text for prompt in read.prompts] == ["good"]
    assert [problem.partition(": ")[0] for problem in read.problems] == [f"p.jsonl:{n}" for n in range(1, 7)]
    assert read.problems[1] == "p.jsonl:2: prompt is empty"


def ledger(folder: Path, *rows: dict[str, Any]) -> str:
    url = urls.in_file(folder / "ledger.db")
    engine = connected(url)
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(requests.insert(), [row(number, **about) for number, about in enumerate(rows)])
    engine.dispose()
    return url


def test_recorded_prompts_are_read_oldest_first_with_their_measured_tokens(tmp_path: Path) -> None:
    url = ledger(
        tmp_path,
        {"at": NOW, "prompt": "second", "requested": "auto:best"},
        {"at": NOW - timedelta(hours=1), "prompt": "first", "requested": "auto:gone", "input_tokens": None},
    )
    first, second = read_ledger(url, EVER, 10).prompts
    assert (first.query.text, first.id, first.query.requested_model) == ("first", "req-1", "auto")
    assert (second.query.text, second.query.requested_model) == ("second", "auto:best")
    assert (second.query.tokens, second.answered) == (8 + 3, 4)
    assert first.query.tokens == len("first") // 4


@pytest.mark.parametrize(
    "left_out",
    [{"prompt": None}, {"prompt": ""}, {"requested": "coder"}, {"reason": "pinned"}, {"at": NOW - timedelta(days=9)}],
)
def test_what_was_not_recorded_not_routed_or_is_older_is_left_out(tmp_path: Path, left_out: dict[str, Any]) -> None:
    url = ledger(tmp_path, {"at": NOW, "prompt": "kept"}, {"at": NOW, "prompt": "not kept", **left_out})
    assert [p.query.text for p in read_ledger(url, NOW - timedelta(days=7), 10).prompts] == ["kept"]


def test_of_many_the_newest_are_read(tmp_path: Path) -> None:
    url = ledger(tmp_path, *({"at": NOW + timedelta(minutes=i), "prompt": f"number {i}"} for i in range(5)))
    read: Traffic = read_ledger(url, EVER, 2)
    assert [p.query.text for p in read.prompts] == ["number 3", "number 4"]
