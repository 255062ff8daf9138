from __future__ import annotations

import json
from pathlib import Path

from router.routing import TURNS_KEPT
from tests.benchmarks.serving.bodies import Bodies, body, prompts


def test_there_are_more_different_prompts_than_a_router_remembers() -> None:
    texts = prompts(english=True)  # the fewest
    assert len(texts) == len(set(texts)) > TURNS_KEPT


def test_no_prompt_is_asked_twice_before_all_were(tmp_path: Path) -> None:
    bodies = Bodies(tmp_path, [f"prompt {i}" for i in range(10)])
    assert bodies.next("auto") == 0
    bodies.asked("auto", 7)
    assert (bodies.next("auto"), bodies.next("general")) == (7, 0)
    bodies.asked("auto", 7)
    assert bodies.next("auto") == 4


def test_a_file_has_a_request_a_line(tmp_path: Path) -> None:
    texts = ["two\nlines", "größer\u2028", '"quoted"']
    lines = Bodies(tmp_path, texts).path("auto", "stream").read_text("utf-8").rstrip("\n").split("\n")
    assert [json.loads(line)["messages"][0]["content"] for line in lines] == texts


def test_a_body_asks_for_its_kind() -> None:
    whole, stream, each = (json.loads(body("x", "auto", kind)) for kind in ("json", "stream", "each"))
    assert "stream" not in whole
    assert stream["stream"] is each["stream"] is each["each"] is True
    assert "each" not in stream
