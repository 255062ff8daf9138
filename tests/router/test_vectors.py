from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from router.encoder import quantised, restored
from router.vectors import Vectors, key_of

Floats = NDArray[np.float32]
TEXTS = ["sort a list", "x" * 5000, "größe", "", "what \ud83d is"]


def unit_rows(seed: int, rows: int, dimensions: int) -> Floats:
    vectors = np.random.default_rng(seed).normal(size=(rows, dimensions))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


@pytest.fixture(scope="module")
def kept() -> Vectors:
    return Vectors.of(TEXTS, {"small": unit_rows(0, len(TEXTS), 8), "large": unit_rows(1, len(TEXTS), 32)})


def test_vectors_are_kept_as_far_as_eight_bits_hold_them(kept: Vectors) -> None:
    for name, seed, width in (("small", 0, 8), ("large", 1, 32)):
        table = kept.table(name)
        assert table.shape == (len(TEXTS), width)
        assert table.dtype == np.float32
        assert table == pytest.approx(unit_rows(seed, len(TEXTS), width), abs=1 / 127)
        assert np.array_equal(table, restored(*quantised(unit_rows(seed, len(TEXTS), width))))


def test_what_was_kept_once_can_be_kept_again_without_loss(kept: Vectors) -> None:
    again = Vectors.of(TEXTS, {"large": kept.table("large")})
    assert again.table("large") == pytest.approx(kept.table("large"), abs=1e-3 / 127)


def test_a_text_is_found_by_what_it_says(kept: Vectors) -> None:
    assert kept.find("small", TEXTS[::-1]) == [4, 3, 2, 1, 0]
    assert kept.find("small", ["Sort a list", "sort a list", "sort a list "]) == [None, 0, None]
    assert kept.find("small", []) == []


def test_nothing_is_found_of_an_encoder_that_is_not_there(kept: Vectors) -> None:
    assert kept.find("unheard-of", TEXTS) == [None] * len(TEXTS)


@given(st.lists(st.text(max_size=9), unique=True, max_size=6), st.text(max_size=9))
@settings(deadline=None, max_examples=60)
def test_a_text_is_found_where_it_is_and_nowhere_else(texts: list[str], other: str) -> None:
    kept = Vectors.of(texts, {"e": unit_rows(2, len(texts), 4)})
    assert kept.find("e", texts) == list(range(len(texts)))
    assert kept.find("e", [other]) == [texts.index(other) if other in texts else None]


def test_vectors_are_built_again_from_their_arrays(kept: Vectors) -> None:
    again = Vectors.from_arrays(kept.arrays())
    assert again.find("large", TEXTS) == kept.find("large", TEXTS)
    for name in ("small", "large"):
        assert np.array_equal(again.table(name), kept.table(name))


def test_the_arrays_are_plain_numbers_and_small(kept: Vectors) -> None:
    arrays = kept.arrays()
    assert {array.dtype.kind for array in arrays.values()} == {"u", "i", "f"}
    assert arrays["large.table"].dtype.itemsize == 1
    assert arrays["keys"].dtype == np.uint64


def test_an_encoder_with_a_name_of_several_parts_keeps_it() -> None:
    kept = Vectors.of(["a"], {"org/model.table-2": unit_rows(3, 1, 4)})
    assert np.array_equal(
        Vectors.from_arrays(kept.arrays()).table("org/model.table-2"), kept.table("org/model.table-2")
    )


def test_no_texts_have_no_vectors() -> None:
    kept = Vectors.from_arrays(Vectors.of([], {"e": np.zeros((0, 4), dtype=np.float32)}).arrays())
    assert kept.table("e").shape == (0, 4)
    assert kept.find("e", ["a"]) == [None]


def test_keys_and_tables_that_do_not_fit_are_refused() -> None:
    table, scale = quantised(unit_rows(4, 3, 4))
    for keys, shorter in ((2, scale), (3, scale[:2])):
        with pytest.raises(ValueError, match="do not fit"):
            Vectors(np.zeros(keys, dtype=np.uint64), {"e": (table, shorter)})


def test_the_key_of_a_text_is_the_start_of_its_hash() -> None:
    assert key_of("größe") == int(hashlib.sha256("größe".encode()).hexdigest()[:16], 16)
    assert len({key_of(f"text {i}") for i in range(1000)}) == 1000
