from __future__ import annotations

from typing import Any

import pytest

from gateway.comparing.answers import Answer, Sampling
from gateway.comparing.page import page
from gateway.comparing.prompts import Prompt
from gateway.comparing.summary import document

HOSTILE = "</pre><script>alert(1)</script>\x1b[2J\udcff\u202e<img src=x onerror=alert(1)>"


def prompt(name: str, domain: str = "math", **by: Any) -> Prompt:
    return Prompt(name, ({"role": "user", "content": f"what is {name}?"},), domain, **by)


def answered(name: str, target: str, expert: str | None = None, **known: Any) -> Answer:
    figures: dict[str, Any] = {
        "first_token": 0.2,
        "seconds": 1.2,
        "output_tokens": 21,
        "tokens_per_second": 20.0,
        **known,
    }
    return Answer(key=f"{name}-{target}", prompt=name, target=target, expert=expert or target, text="so", **figures)


def told(*answers: Answer, targets: dict[str, str | None] | None = None, prompts: list[Prompt] | None = None) -> Any:
    by = {(answer.prompt, answer.target): answer for answer in answers}
    asked = prompts or [prompt(name) for name in dict.fromkeys(answer.prompt for answer in answers)]
    return document(asked, targets or {"coder": "coder"}, by, Sampling(), "today")


def test_figures_are_of_what_the_expert_itself_said() -> None:
    figures = told(
        answered("a", "coder", grade=1.0, cost_usd=0.002),
        answered("b", "coder", grade=0.0, first_token=0.4, cost_usd=0.004),
        answered("c", "coder", expert="general", grade=1.0, first_token=9.0, cost_usd=9.0),
        answered("d", "coder", error="busy", first_token=None),
    )["targets"]["coder"]
    assert (figures["answered"], figures["failed"], figures["stood_in"]) == (3, 1, 1)
    assert figures["first_token"]["p50"] == pytest.approx(0.3)
    assert figures["cost_usd"] == pytest.approx(0.006)
    assert (figures["priced"], figures["output_tokens"]) == (2, 42)
    assert figures["experts"] == {"coder": 2, "general": 1}
    assert figures["quality"]["math"]["mean"] == 0.5
    assert (figures["quality"]["all"]["rows"], figures["quality"]["all"]["right"]) == (2, 1)
    assert figures["quality"]["math"]["low"] < 0.5 < figures["quality"]["math"]["high"]


def test_whoever_the_router_chose_counts_for_it() -> None:
    figures = told(
        answered("a", "auto", expert="coder"), answered("b", "auto", expert="general"), targets={"auto": None}
    )
    assert figures["targets"]["auto"]["stood_in"] == 0
    assert figures["targets"]["auto"]["experts"] == {"coder": 1, "general": 1}


def test_quality_is_kept_apart_by_domain_and_prompts_without_one_count_for_all_alone() -> None:
    prompts = [prompt("a", "math"), prompt("b", "code"), prompt("c", "")]
    answers = [answered(p.id, "coder", grade=float(p.id != "b")) for p in prompts]
    quality = told(*answers, prompts=prompts)["targets"]["coder"]["quality"]
    assert {domain: q["mean"] for domain, q in quality.items()} == {"all": pytest.approx(2 / 3), "math": 1, "code": 0}


def test_the_page_shows_answers_side_by_side_with_nothing_loaded_or_run() -> None:
    text = page(
        told(
            answered("a", "coder", grade=1.0, cost_usd=0.0000123, reasoning="hm"),
            answered("a", "auto", expert="general", grade=0.0, why="expected 42"),
            targets={"coder": "coder", "auto": None},
        ),
        "prompts.jsonl",
    )
    for shown in (
        "what is a?",
        "0.0000123 USD",
        "its thoughts",
        "wrong: expected 42",
        "200 ms",
        "1 of 1",
        "auto</bdi> → ",
    ):
        assert shown in text
    assert "<script" not in text
    assert "default-src 'none'" in text


def test_what_models_say_is_text_on_the_page() -> None:
    hostile = answered(HOSTILE, HOSTILE, expert=HOSTILE, error=HOSTILE, why=HOSTILE, reasoning=HOSTILE)
    hostile.text = HOSTILE
    text = page(told(hostile, targets={HOSTILE: None}, prompts=[prompt(HOSTILE, HOSTILE)]), HOSTILE)
    assert "<script" not in text
    assert "<img" not in text
    assert "\x1b" not in text
    text.encode("utf-8")


def test_nothing_that_was_answered_is_a_page_too() -> None:
    text = page(
        told(answered("a", "coder", error="down", first_token=None, tokens_per_second=None, output_tokens=None)), "p"
    )
    assert "failed: down" in text
