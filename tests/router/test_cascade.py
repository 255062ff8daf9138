from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from router.calibration import Temperature
from router.cascade import Cascade, Stage
from router.classifier import LinearHead
from router.decision import Doubt, Scores
from router.decision import Stage as StageName
from router.detectors import Detectors
from router.encoder import TransformerEncoder
from tests.fakes.encoders import Spoken, identity, stage_of, tiny_encoder

DOMAINS = ("code", "math", "bio")


class Hearing:
    """An encoder for texts that say what each stage thinks, such as `cheap:code=0.9 best:math=0.8`."""

    def __init__(self, stage: str) -> None:
        self.stage, self.name, self.dimensions = stage, stage, len(DOMAINS)
        self.spoken = Spoken(DOMAINS)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        start = f"{self.stage}:"
        return self.spoken.encode(
            [" ".join(w.removeprefix(start) for w in t.split() if w.startswith(start)) for t in texts]
        )


def stage(name: str, kind: StageName, sure: float = 0.0, blend: float = 0.0) -> Stage:
    return replace(stage_of(Hearing(name), identity(len(DOMAINS)), kind, sure=sure), blend=blend)


def language_of(text: str) -> str:
    return "ja" if "japanese" in text else "de" if "german" in text else "" if "nothing" in text else "en"


def doubt_of(text: str, language: str) -> Doubt | None:
    """Nobody reads Japanese here, and noise means nothing."""
    return "unreadable_language" if language == "ja" else "out_of_distribution" if "noise" in text else None


def cascade(sure: float = 0.8, blend: float = 0.0) -> Cascade:
    """A cheap stage and a good one, which listens to the cheap one as much as `blend` says."""
    stages = [stage("cheap", "static", sure), stage("best", "transformer", blend=blend)]
    return Cascade(DOMAINS, stages, language_of, doubt_of)


def heard(made: Cascade) -> list[list[list[str]]]:
    """What the encoder of each stage was given, call by call."""
    found = []
    for part in made.stages:
        assert isinstance(part.encoder, Hearing)
        found.append(part.encoder.spoken.seen)
    return found


def said(stage_name: str, *chances: float) -> str:
    return " ".join(f"{stage_name}:{domain}={chance}" for domain, chance in zip(DOMAINS, chances, strict=True))


SURE = f"{said('cheap', 0.9, 0.05, 0.05)} {said('best', 0.1, 0.8, 0.1)}"
UNSURE = f"{said('cheap', 0.5, 0.3, 0.2)} {said('best', 0.1, 0.8, 0.1)}"


@st.composite
def texts(draw: st.DrawFn) -> str:
    """What both stages think of it, and whether it is Japanese or noise."""
    words = []
    for name in ("cheap", "best"):
        chances = np.array(draw(st.tuples(*(st.integers(1, 50) for _ in DOMAINS))), dtype=float)
        words.append(said(name, *(chances / chances.sum()).round(4)))
    return " ".join([*words, draw(st.sampled_from(["", "", "", "japanese", "noise"]))])


def alone(made: Cascade, text: str) -> Scores:
    """What the cascade should say of the text: the cheap stage where it is sure or there is doubt, else the best one."""
    language = language_of(text)
    doubt = doubt_of(text, language)
    before = None
    for part in made.stages:
        before = part.probabilities([text], before)
        (row,) = before
        if doubt or max(row) >= part.sure or part is made.stages[-1]:
            return Scores(dict(zip(DOMAINS, row.tolist(), strict=True)), part.name, doubt, language)
    raise AssertionError("the last stage answers")


def assert_same(found: Scores, expected: Scores) -> None:
    assert (found.stage, found.doubt, found.language) == (expected.stage, expected.doubt, expected.language)
    assert found.by_domain == pytest.approx(expected.by_domain, abs=1e-6)
    assert list(found.by_domain) == list(DOMAINS)


@given(st.lists(texts(), max_size=6), st.sampled_from([0.0, 0.25]))
@settings(deadline=None, max_examples=60)
def test_a_text_has_the_scores_of_the_first_stage_that_is_sure_whatever_the_batch(
    batch: list[str], blend: float
) -> None:
    made = cascade(blend=blend)
    found = made.score_many(batch)
    assert len(found) == len(batch)
    for scores, text in zip(found, batch, strict=True):
        assert_same(scores, alone(made, text))
        assert sum(scores.by_domain.values()) == pytest.approx(1)


@given(texts())
@settings(deadline=None, max_examples=60)
def test_the_quick_way_says_what_the_other_says_or_nothing(text: str) -> None:
    made = cascade()
    (whole,) = made.score_many([text])
    quick = made.quick(text)
    assert (quick is None) == (whole.stage == "transformer")
    if quick is not None:
        assert_same(quick, whole)


def test_a_text_that_the_cheap_stage_is_sure_of_goes_no_further() -> None:
    made = cascade()
    found = made.score_many([SURE, UNSURE, SURE])
    assert [scores.stage for scores in found] == ["static", "transformer", "static"]
    assert [scores.domain for scores in found] == ["code", "math", "code"]
    cheap, best = heard(made)
    assert [len(call) for call in cheap] == [3]
    assert [len(call) for call in best] == [1]


@pytest.mark.parametrize(("word", "stage"), [("german", "transformer"), ("nothing", "static"), ("english", "static")])
def test_the_cheap_stage_answers_in_languages_that_it_reads_well(word: str, stage: str) -> None:
    made, text = cascade(), f"cheap:code=0.95 best:math=0.6 {word}"
    (scores,) = made.score_many([text])
    assert scores.stage == stage
    assert made.quick(text) == (scores if stage == "static" else None)


def test_where_there_is_no_other_the_cheap_stage_answers_in_every_language() -> None:
    made, text = Cascade(DOMAINS, [stage("cheap", "static", 0.8)], language_of, doubt_of), "cheap:code=0.95 german"
    assert made.quick(text) == made.score_many([text])[0]


def test_the_best_stage_is_left_in_peace_where_nothing_is_left_for_it() -> None:
    made = cascade()
    made.score_many([SURE, SURE])
    assert heard(made)[1] == []


def test_the_quick_way_never_asks_the_best_stage() -> None:
    made = cascade()
    assert made.quick(UNSURE) is None
    assert heard(made)[1] == []


def test_just_sure_enough_is_sure() -> None:
    half = said("cheap", 0.5, 0.5, 0) + " " + said("best", 0, 0, 1)
    for sure, stage_name in ((0.4999, "static"), (0.5001, "transformer")):
        (scores,) = cascade(sure).score_many([half])
        assert scores.stage == stage_name
        assert (cascade(sure).quick(half) is None) == (stage_name == "transformer")


@pytest.mark.parametrize(("word", "doubt"), [("noise", "out_of_distribution"), ("japanese", "unreadable_language")])
def test_a_text_that_cannot_be_judged_goes_no_further_and_says_why(word: str, doubt: str) -> None:
    made = cascade()
    (whole,) = made.score_many([f"{UNSURE} {word}"])
    quick = made.quick(f"{UNSURE} {word}")
    assert quick is not None
    for scores in (whole, quick):
        assert (scores.stage, scores.doubt, scores.domain) == ("static", doubt, "code")
    assert heard(made)[1] == []


def test_the_language_of_a_text_is_told_with_its_scores() -> None:
    made = Cascade(DOMAINS, [stage("best", "transformer")], lambda text: text[-2:])
    assert [scores.language for scores in made.score_many([f"{UNSURE} de", f"{UNSURE} ja"])] == ["de", "ja"]


def test_one_transformer_alone_has_no_quick_way_and_answers_everything() -> None:
    made = Cascade(DOMAINS, [stage("best", "transformer", sure=1.0)])
    assert made.quick(SURE) is None
    (scores,) = made.score_many([SURE])
    assert (scores.stage, scores.domain, scores.language, scores.doubt) == ("transformer", "math", "", None)


def test_a_transformer_in_the_place_of_the_cheap_stage_has_no_quick_way(tmp_path: Path) -> None:
    encoder = TransformerEncoder(tiny_encoder(tmp_path, [SURE], dimensions=len(DOMAINS)))
    made = Cascade(DOMAINS, [stage_of(encoder, identity(len(DOMAINS)), "static", sure=0.0)])
    assert made.quick(SURE) is None
    assert made.score_many([SURE])[0].stage == "static"


def test_one_static_stage_alone_answers_everything_at_once_sure_or_not() -> None:
    made = Cascade(DOMAINS, [stage("cheap", "static", sure=1.0)])
    quick = made.quick(UNSURE)
    assert quick is not None
    assert quick.by_domain == pytest.approx({"code": 0.5, "math": 0.3, "bio": 0.2})
    assert_same(made.score_many([UNSURE])[0], quick)


def test_no_texts_have_no_scores_and_ask_nobody() -> None:
    made = cascade()
    assert made.score_many([]) == []
    assert [call for calls in heard(made) for call in calls if call] == []


def test_a_stage_is_encoder_then_head_then_calibrator_then_detectors() -> None:
    head = LinearHead(np.array([[2, 0], [0, 2]], dtype=np.float32), np.array([1, 0], dtype=np.float32))
    detectors = Detectors(np.array([[0.5, -0.5]], dtype=np.float32), np.array([0.25], dtype=np.float32))
    made = Stage("static", Spoken(("code", "math")), head, Temperature(2.0), detectors)
    vector = np.log([0.8, 0.2])
    logits = (2 * vector + [1, 0]) / 2
    known = np.exp(logits) / np.exp(logits).sum()
    found = 1 / (1 + np.exp(-(0.5 * vector[0] - 0.5 * vector[1] + 0.25)))
    expected = [*(known * (1 - found)), found]
    assert made.probabilities(["code=0.8 math=0.2"])[0] == pytest.approx(expected, abs=1e-6)
    assert made.of_vectors(vector[None].astype(np.float32))[0] == pytest.approx(expected, abs=1e-6)


def test_a_stage_that_listens_has_the_weighted_mean_of_its_own_logits_and_what_was_said() -> None:
    text = f"{said('cheap', 0.5, 0.3, 0.2)} {said('best', 0.1, 0.8, 0.1)}"
    (scores,) = cascade(blend=0.25).score_many([text])
    weighed = np.array([0.1, 0.8, 0.1]) ** 0.75 * np.array([0.5, 0.3, 0.2]) ** 0.25
    assert list(scores.by_domain.values()) == pytest.approx(weighed / weighed.sum(), abs=1e-5)


def test_who_listens_to_nobody_is_not_moved() -> None:
    best = stage("best", "transformer", blend=0.0)
    said_before = np.array([[0.9, 0.05, 0.05]])
    assert np.array_equal(best.probabilities([UNSURE], said_before), best.probabilities([UNSURE]))
    listening = stage("best", "transformer", blend=0.25)
    assert np.array_equal(listening.probabilities([UNSURE]), best.probabilities([UNSURE]))


def test_what_detectors_found_before_is_left_out_of_what_was_said() -> None:
    """A domain that was added is found by each stage itself; of the others only the proportions are listened to."""
    best = stage("best", "transformer", blend=0.25)
    plain = best.probabilities([UNSURE], np.array([[0.5, 0.3, 0.2]]))
    for left in (0.1, 1e-6):
        beside = best.probabilities([UNSURE], np.array([[0.5 * left, 0.3 * left, 0.2 * left, 1 - left]]))
        assert beside == pytest.approx(plain, abs=1e-5)
    everything = best.probabilities([UNSURE], np.array([[0.0, 0.0, 0.0, 1.0]]))
    assert everything == pytest.approx(best.probabilities([UNSURE], np.full((1, 3), 1 / 3)), abs=0.02)
