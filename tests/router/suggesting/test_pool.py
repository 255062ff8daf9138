from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router.artifact import Artifact
from router.decision import Query
from router.experts import load_experts
from router.rerouting import Prompt, silent
from router.routing import Router
from router.suggesting import pool
from router.suggesting.pool import Pool, background_of, gather
from tests.fakes.encoders import told_router
from tests.fakes.fleets import fleet

ROOT = Path(__file__).parents[3]
EXPERTS: dict[str, dict[str, Any]] = {"coder": {"domains": ["code"]}, "general": {"domains": ["general"]}}


def gathered(*texts: str) -> Pool:
    router = told_router(fleet(EXPERTS, floor=0.55))
    return gather(router, [Prompt(Query(text)) for text in texts], silent)


def test_what_comes_to_the_fallback_or_leaves_the_router_unsure_is_gathered() -> None:
    found = gathered("code=1", "general=1 id=1.", "code=0.5 math=0.5 general=0")
    assert (found.prompts, found.unanswered) == (3, 2)
    assert found.texts == ("general=1 id=1.", "code=0.5 math=0.5 general=0")
    assert found.domains == ("general", "code")
    assert found.vectors.shape == (2, 4)


def test_what_a_specialist_of_its_language_answers_is_gathered_where_its_domain_is_not_known() -> None:
    finn = {"domains": {"general": 0.9}, "languages": ["fi"]}
    router = told_router(fleet({"general": {"domains": {"general": 0.8}}, "finn": finn}, floor=0.55))
    unsure, unread = "code=0.5 general=0.5 language=fi", "general=1 doubt=unreadable_language language=fi"
    decisions = [router.decide(Query(text)) for text in (unsure, unread)]
    assert [(d.expert, d.reason) for d in decisions] == [("finn", "low_confidence"), ("finn", "unreadable_language")]
    found = gather(router, [Prompt(Query(unsure)), Prompt(Query(unread))], silent)
    assert (found.texts, found.unread) == ((unsure,), {})


def test_texts_that_differ_in_figures_case_and_spaces_alone_are_one() -> None:
    found = gathered("general=1 id=17", "general=1  ID=18", "general=1 id=x")
    assert (found.texts, found.counts) == (("general=1 ID=18", "general=1 id=x"), (2, 1))
    assert (found.unanswered, len(found.texts)) == (3, 2)


def test_noise_and_languages_that_cannot_be_read_are_counted_and_left_aside() -> None:
    noise, finnish = "general=1 doubt=out_of_distribution", "general=1 doubt=unreadable_language language=fi"
    found = gathered(noise, finnish, finnish, "general=1")
    assert (found.noise, found.unread, found.unanswered) == (1, {"fi": 2}, 4)
    assert found.texts == ("general=1",)
    assert found.described() == {
        "prompts": 4,
        "unanswered": 4,
        "texts": 1,
        "noise": 1,
        "unread": {"fi": 2},
        "left_out": 0,
    }


def test_a_short_turn_is_read_with_the_ones_before_it() -> None:
    router = told_router(fleet(EXPERTS))
    talk = Prompt(Query("general=1 go=on", earlier=("general=1 first=turn",)))
    assert gather(router, [talk], silent).texts == ("general=1 go=on\ngeneral=1 first=turn",)


def test_of_too_many_texts_the_newest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "MOST_TEXTS", 2)
    found = gathered("general=1 id=a", "general=1 id=b", "general=1 id=c", "general=1 id=a")
    assert (found.texts, found.left_out) == (("general=1 id=c", "general=1 id=a"), 1)


def test_the_background_is_the_corpus_that_the_router_was_trained_on(packaged: Artifact) -> None:
    router = Router(load_experts(ROOT / "experts.yaml"), packaged)
    found = background_of(router)
    assert len(found.texts) == len(found.vectors) == len(found.domains) == len(found.topics) > 15_000
    assert np.allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=0.02)
    assert {*found.domains.tolist()} == {"code", "math", "bio", "general"}
    less = found.without(["law"])
    assert len(less.texts) == len(less.vectors) == len(found.texts) - int((found.topics == "law").sum())
    assert "law" not in less.topics
