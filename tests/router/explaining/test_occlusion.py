from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from router.explaining.occlusion import FEW_PIECES, IDEOGRAPHS, LONGEST, MOST_PIECES, occluded, pieces_of

WEIGHTS = {"python": 2.0, "snake": -1.0}


def by_words(texts: Sequence[str]) -> NDArray[np.float64]:
    """Two domains; the log-odds of the first are the sum of the weights of the text's words."""
    odds = np.array([sum(WEIGHTS.get(word, 0.0) for word in text.split()) for text in texts])
    first = 1 / (1 + np.exp(-odds))
    return np.stack([first, 1 - first], axis=1)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", []),
        ("sort it", ["sort ", "it"]),
        ("  sort\n it ", ["  sort\n ", "it "]),
        ("x" * (LONGEST + 1), ["x" * LONGEST, "x"]),
        ("リスト並替", ["リス", "ト並", "替"]),
        ("Pythonで書く", ["Python", "で書", "く"]),
        ("ภาษาไทยดีมาก", ["ภาษา", "ไทยดี", "มาก"]),
    ],
)
def test_a_text_is_cut_into_words_or_into_characters_where_there_are_no_spaces(text: str, pieces: list[str]) -> None:
    assert pieces_of(text) == pieces


def test_a_vowel_sign_stays_with_its_letter() -> None:
    for text in ("ကျွန်တော်ဘယ်လိုစာရင်းကိုစီရမလဲ", "น้ำที่นี่", "é" * 60):
        assert all(not unicodedata.category(piece[0]).startswith("M") for piece in pieces_of(text))


@pytest.mark.parametrize("most", [FEW_PIECES, MOST_PIECES])
def test_more_words_than_are_allowed_are_put_together_evenly(most: int) -> None:
    text = "a " * (2 * most + 1)
    pieces = pieces_of(text, most)
    assert len(pieces) == most
    assert {len(piece.split()) for piece in pieces} == {2, 3}
    assert [piece.text for piece in occluded(text, 0, by_words, most)] == pieces


@given(st.text(max_size=300) | st.text("aก ိ愛\n", max_size=300), st.integers(1, MOST_PIECES))
def test_the_pieces_are_the_text_and_none_is_empty(text: str, most: int) -> None:
    pieces = pieces_of(text, most)
    assert "".join(pieces) == text
    assert len(pieces) <= most
    assert all(pieces)


@given(st.text("愛ア", min_size=1, max_size=2 * MOST_PIECES))
def test_no_piece_has_more_ideographs_than_make_a_word(text: str) -> None:
    assert all(len(piece) <= IDEOGRAPHS for piece in pieces_of(text))


def test_an_effect_is_what_the_log_odds_lose_without_the_piece() -> None:
    for domain, effects in ((0, [0.0, 2.0, -1.0]), (1, [0.0, -2.0, 1.0])):
        pieces = occluded("my python snake", domain, by_words)
        assert [piece.text for piece in pieces] == ["my ", "python ", "snake"]
        assert [piece.effect for piece in pieces] == pytest.approx(effects)


def test_certainty_is_no_infinite_effect() -> None:
    def certain(texts: Sequence[str]) -> NDArray[np.float64]:
        return np.array([[1.0, 0.0] if "x" in text else [0.0, 1.0] for text in texts])

    (piece,) = occluded("x", 0, certain)
    assert math.isfinite(piece.effect)
    assert piece.effect > 20


def test_the_classifier_is_asked_once_and_an_empty_text_has_no_pieces() -> None:
    asked: list[Sequence[str]] = []

    def counting(texts: Sequence[str]) -> NDArray[np.float64]:
        asked.append(texts)
        return by_words(texts)

    occluded("a b c", 0, counting)
    assert asked == [["a b c", "b c", "a c", "a b "]]
    assert occluded("", 0, by_words) == []
