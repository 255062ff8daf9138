"""Every n-gram of characters, every word and every two neighbouring words of a text have a row, wherever they stand."""

from __future__ import annotations

import unicodedata
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.ngrams import BASE, CHARACTERS, GRAMS, NEIGHBOURS, SPREAD, WORDS, ngram_rows

ROWS = 1 << 17
TEXT = st.text(max_size=60) | st.text("ab c.", max_size=60)


def plainly(text: str, rows: int) -> Counter[int]:
    """The same, one n-gram at a time."""
    whole = 1 << 64

    def hashed(part: str) -> int:
        return sum(ord(c) * pow(BASE, i, whole) for i, c in enumerate(part)) % whole

    plain = f" {' '.join(unicodedata.normalize('NFKC', text).lower().split())[:CHARACTERS]} "
    plain = plain.encode("utf-32-le", "replace").decode("utf-32-le")
    found = [hashed(plain[i : i + n]) for n in GRAMS for i in range(len(plain) - n + 1)]
    inside = [c <= "\uffff" and (c.isalnum() or unicodedata.category(c).startswith("M")) for c in plain]
    words = [hashed(w) for w in "".join(c if i else "\0" for c, i in zip(plain, inside, strict=True)).split("\0") if w]
    found += [word * WORDS for word in words]
    found += [one * NEIGHBOURS + other for one, other in pairwise(words)]
    return Counter((value * SPREAD % whole) >> (64 - rows.bit_length() + 1) for value in found)


@given(TEXT, st.integers(1, 20).map(lambda power: 1 << power))
@settings(deadline=None, max_examples=150)
def test_the_rows_are_those_of_every_ngram_of_characters_and_of_words(text: str, rows: int) -> None:
    found = ngram_rows(text, rows)
    assert Counter(found.tolist()) == plainly(text, rows)
    assert len(found) > 0
    assert ((found >= 0) & (found < rows)).all()


@given(TEXT, st.text("abñ c.жか", min_size=1, max_size=60).filter(str.strip))
@settings(deadline=None, max_examples=60)
def test_a_text_has_the_same_ngrams_wherever_it_stands(before: str, text: str) -> None:
    whole = Counter(ngram_rows(f"{before} {text}", ROWS).tolist())
    assert not Counter(ngram_rows(text, ROWS).tolist()) - whole


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Sort A List", "sort a list"),
        ("  sort\n\ta list ", "sort a list"),
        ("ｓｏｒｔ", "sort"),
        ("cafe\u0301", "café"),
        ("x\ud800y", "x?y"),
    ],
)
def test_what_is_written_otherwise_but_reads_the_same_has_the_same_rows(one: str, other: str) -> None:
    assert ngram_rows(one, ROWS).tolist() == ngram_rows(other, ROWS).tolist()


def test_the_order_of_words_counts() -> None:
    assert sorted(ngram_rows("gene word", ROWS)) != sorted(ngram_rows("word gene", ROWS))


def test_the_marks_of_indic_scripts_are_part_of_a_word() -> None:
    # One word and its two-, three- and more-grams; were the vowel signs no letters, there would be three words and two pairs.
    text = "गणित"
    grams = sum(len(text) + 2 - n + 1 for n in GRAMS)
    assert len(ngram_rows(text, ROWS)) == grams + 1


def test_a_misspelled_word_keeps_most_of_its_rows() -> None:
    right, wrong = (
        set(ngram_rows(text, ROWS).tolist()) for text in ("integrate the polynomial", "integrate the polynomail")
    )
    assert len(right & wrong) > 0.7 * len(right)


def test_a_huge_text_is_read_up_to_a_limit() -> None:
    huge = ngram_rows("word " * 1_000_000, ROWS)
    assert len(huge) < 8 * CHARACTERS
    assert huge.tolist() == ngram_rows("word " * 2_000_000, ROWS).tolist()


def test_ngrams_spread_over_the_rows() -> None:
    text = " ".join(np.base_repr(i * 7919 % 46655, 36) for i in range(200, 420))
    assert len(set(ngram_rows(text, ROWS).tolist())) > 0.6 * len(ngram_rows(text, ROWS))
    assert np.bincount(ngram_rows(text, ROWS) >> 14, minlength=8).min() > 200
