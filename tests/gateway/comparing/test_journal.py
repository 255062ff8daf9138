from __future__ import annotations

from pathlib import Path

from gateway.comparing.answers import Answer, Sampling, key_of
from gateway.comparing.journal import Journal
from gateway.comparing.prompts import Prompt

PROMPT = Prompt("1", ({"role": "user", "content": "?"},))


def answer(key: str, error: str = "") -> Answer:
    return Answer(key=key, prompt="1", target="t", text=f"of {key}", error=error)


def test_answers_are_known_again_and_failures_are_not(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    with Journal(path) as journal:
        for given in (answer("a"), answer("b", error="busy"), answer("c")):
            journal.add(given)
    with Journal(path) as again:
        assert {key: known.text for key, known in again.known.items()} == {"a": "of a", "c": "of c"}


def test_a_line_that_broke_off_costs_that_answer_alone(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    with Journal(path) as journal:
        journal.add(answer("a"))
        journal.add(answer("b"))
    path.write_bytes(path.read_bytes()[:-20])
    with Journal(path) as journal:
        assert set(journal.known) == {"a"}
        journal.add(answer("c"))
    with Journal(path) as again:
        assert set(again.known) == {"a", "c"}


def test_a_fresh_one_forgets(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    with Journal(path) as journal:
        journal.add(answer("a"))
    with Journal(path, fresh=True) as again:
        assert again.known == {}
    assert path.read_bytes() == b""


def test_an_answer_is_known_by_what_was_asked_whom_and_how() -> None:
    known = key_of(PROMPT, "coder", Sampling(max_tokens=10))
    assert known == key_of(Prompt("other id", PROMPT.messages, "code", "42"), "coder", Sampling(max_tokens=10))
    others = [
        key_of(PROMPT, "general", Sampling(max_tokens=10)),
        key_of(PROMPT, "coder", Sampling(max_tokens=11)),
        key_of(PROMPT, "coder", Sampling(max_tokens=10, temperature=0)),
        key_of(Prompt("1", ({"role": "user", "content": "!"},)), "coder", Sampling(max_tokens=10)),
    ]
    assert known not in others
    assert len(set(others)) == 4
