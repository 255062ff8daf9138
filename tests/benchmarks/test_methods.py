from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from router.dataset import Row
from tests.benchmarks import methods
from tests.benchmarks.methods import CASCADE, LEXICAL, MEANS, METHODS, Bench, Lessons, Method, weighed
from tests.benchmarks.models import Classifier, Vectors
from tests.fakes.corpora import PATTERNS, small_corpus

DOMAINS = tuple(PATTERNS)


def worded(source: str, texts: Sequence[str]) -> Vectors:
    """Vectors that tell the small corpus's domains apart, and are never quite the same for two texts."""
    rows = [[float(PATTERNS[d].split()[0] in text) for d in DOMAINS] for text in texts]
    noise = np.random.default_rng(len(texts)).normal(size=(len(texts), 4)) * 0.01
    return (np.array(rows) + noise).astype(np.float32)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    patch = pytest.MonkeyPatch()
    patch.setattr(methods, "TREES", 8)
    with threadpool_limits(1):  # threads that wait for one another take minutes on a busy machine
        yield Bench(
            Lessons.of([Row(f"{row.text}, {i}", row.domain) for row in small_corpus() for i in range(4)]), worded
        )
    patch.undo()


# Of every kind of features and of every head one: the others differ by their encoders alone.
LEARNERS = [
    *(name for name, method in METHODS.items() if method.family in (LEXICAL, "MiniLM", CASCADE)),
    next(name for name, method in METHODS.items() if method.family == MEANS),
]


@pytest.mark.parametrize("name", LEARNERS)
def test_every_method_learns_what_is_plain(bench: Bench, name: str) -> None:
    texts = [pattern.format("nothing at all") for pattern in PATTERNS.values()]
    said = bench.fitted(name).probabilities(texts, worded)
    assert said.shape == (4, 4)
    assert said.sum(axis=1) == pytest.approx(np.ones(4))
    assert said.argmax(axis=1).tolist() == [0, 1, 2, 3]


def test_held_out_rows_are_not_learned_from() -> None:
    rows = [Row(f"prompt {i}", "code") for i in range(80)]
    lessons = Lessons.of([*rows, rows[0]])
    assert sorted(lessons.texts) == sorted(row.text for row in rows if not row.held_out)
    assert sorted(lessons.held_texts) == sorted(row.text for row in rows if row.held_out)
    assert lessons.targets.tolist() == [[1, 0, 0, 0]] * len(lessons.texts)


def test_what_a_method_is_made_of_is_fitted_once_and_its_time_counted() -> None:
    fitted: list[str] = []

    def fit(bench: Bench, parts: list[Classifier]) -> Classifier:
        fitted.append("one")
        return METHODS["words, linear"].fit(bench, parts)

    METHODS["a part"] = Method("test", "part", fit)
    METHODS["a whole"] = Method("test", "whole", lambda bench, parts: parts[0], parts=("a part",))
    try:
        bench = Bench(Lessons.of(small_corpus()), worded)
        assert bench.fitted("a whole") is bench.fitted("a part")
        assert fitted == ["one"]
        assert bench.seconds["a whole"] > bench.seconds["a part"] > 0
    finally:
        del METHODS["a part"], METHODS["a whole"]


def test_domains_weigh_alike_and_alternates_by_their_shares() -> None:
    targets = np.array([[1, 0], [1, 0], [0.7, 0.3]], dtype=np.float32)
    rows, labels, weights = weighed(targets)
    assert rows.tolist() == [0, 1, 2, 2]
    assert labels.tolist() == [0, 0, 0, 1]
    assert weights[labels == 0].sum() == pytest.approx(weights[labels == 1].sum())
    assert weights[2] == pytest.approx(0.7 * weights[0])
