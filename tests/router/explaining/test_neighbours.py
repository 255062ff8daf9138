from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
from numpy.typing import NDArray

from router.dataset import Row
from router.errors import ArtifactError, CorpusError, RouterError
from router.explaining.neighbours import Neighbours
from router.vectors import Vectors
from tests.fakes.corpora import trained_on

CODE, MATH = trained_on("code", 3), trained_on("math", 3)
ROWS = [*CODE, *MATH]


def kept(rows: Sequence[Row], vectors: Sequence[Sequence[float]], encoder: str = "e") -> Vectors:
    return Vectors.of([row.text for row in rows], {encoder: np.array(vectors, dtype=np.float32)})


ALONG = [[1.0, 0.0], [2.0, 0.1], [1.0, 1.0], [0.0, 3.0], [0.1, 1.0], [-1.0, 0.0]]


def query(*figures: float) -> NDArray[np.float32]:
    return np.array(figures, dtype=np.float32)


def known(rows: Sequence[Row] = ROWS, vectors: Vectors | None = None) -> Neighbours:
    found = kept(ROWS, ALONG) if vectors is None else vectors
    return Neighbours(lambda: found, lambda: rows)


def test_the_nearest_come_first_by_the_angle_whatever_the_lengths() -> None:
    found = known().nearest("e", query(0.0, 0.5), 3)
    assert [n.text for n in found] == [MATH[0].text, MATH[1].text, CODE[2].text]
    assert [n.similarity for n in found] == pytest.approx([1.0, 0.995, 0.707], abs=0.01)
    assert {n.domain for n in found} == {"math", "code"}


def test_a_row_says_its_domain_and_language() -> None:
    rows = [Row(CODE[0].text, "bio", frozenset({"general"}), language="ja")]
    (found,) = known(rows).nearest("e", query(1, 0))
    assert (found.domain, found.language) == ("bio", "ja")


def test_the_turns_of_a_conversation_are_found_as_they_were_trained_on() -> None:
    row = Row("b\na", "code", turns=(CODE[0].text, CODE[1].text), kind="followup", language="fr")
    found = known([row]).nearest("e", query(1, 0))
    assert [(n.text, n.domain) for n in found] == [(CODE[0].text, "code"), (CODE[1].text, "code")]


def test_what_was_not_trained_on_is_no_neighbour() -> None:
    rows = [Row(f"row {i}", "code") for i in range(200)]
    held, taught = next(r for r in rows if r.held_out), next(r for r in rows if not r.held_out)
    found = known([held, taught], kept([held, taught], [[1, 0], [0, 1]])).nearest("e", query(1, 0))
    assert [n.text for n in found] == [taught.text]
    # Of an added domain every example is learned from.
    own = Row(held.text, "law")
    assert known([own], kept([own], [[1, 0]])).nearest("e", query(1, 0))[0].domain == "law"


def test_texts_that_are_no_longer_here_are_passed_over_and_where_none_is_it_says_so() -> None:
    assert [n.text for n in known(MATH).nearest("e", query(1, 0), 1)] == [MATH[1].text]
    with pytest.raises(RouterError, match="none of the texts"):
        known([Row("another", "code")]).nearest("e", query(1, 0))


def test_an_encoder_whose_vectors_are_not_kept_is_named() -> None:
    with pytest.raises(RouterError, match="no vectors of the encoder other"):
        known().nearest("other", query(1, 0))


def test_a_vector_of_noughts_is_like_nothing() -> None:
    assert [n.similarity for n in known().nearest("e", query(0, 0), 2)] == [0.0, 0.0]


def test_everything_is_loaded_once_whoever_asks_first_and_not_before() -> None:
    calls: list[str] = []
    together, inside = threading.Barrier(4), threading.Barrier(2)

    def vectors() -> Vectors:
        calls.append("vectors")
        with suppress(threading.BrokenBarrierError):
            inside.wait(0.2)  # a second thread in here would be met
        return kept(ROWS, ALONG)

    def rows() -> list[Row]:
        calls.append("rows")
        return ROWS

    def ask() -> str:
        together.wait()
        return neighbours.nearest("e", query(1, 0))[0].text

    neighbours = Neighbours(vectors, rows)
    assert calls == []
    with ThreadPoolExecutor(4) as threads:
        answers = [f.result() for f in [threads.submit(ask) for _ in range(4)]]
    assert set(answers) == {CODE[0].text}
    assert calls == ["vectors", "rows"]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ArtifactError("/srv/secret/vectors-1.npz is missing"), "the file of their vectors .*: moe-gateway train"),
        (CorpusError("no training prompts in /srv/secret"), "the training prompts themselves are missing"),
    ],
)
def test_what_cannot_be_loaded_is_told_each_time_without_its_folder_and_tried_once(
    error: RouterError, told: str
) -> None:
    calls: list[int] = []

    def fails() -> Vectors:
        calls.append(1)
        raise error

    neighbours = Neighbours(fails, lambda: ROWS)
    for _ in range(2):
        with pytest.raises(RouterError, match=told) as raised:
            neighbours.nearest("e", query(1, 0))
        assert "secret" not in str(raised.value)
    assert calls == [1]
