from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tests.benchmarks.models import Calibrated, Dense, Floats, InTurn, Layers, Mean, Neighbours, Read, Vectors


class Fixed:
    """A classifier that says the same of every text, by the text's first letter; it remembers what it was asked."""

    def __init__(self, source: str, **said: Sequence[float]) -> None:
        self.sources, self.said, self.asked = (source,), said, list[str]()

    def probabilities(self, texts: Sequence[str], read: Read) -> Floats:
        self.asked += texts
        return np.array([self.said[text[0]] for text in texts])


def unread(source: str, texts: Sequence[str]) -> Vectors:
    raise AssertionError("nothing is to be read")


def test_the_second_is_asked_only_what_the_first_is_not_sure_of() -> None:
    first = Fixed("a", x=[0.9, 0.1], y=[0.6, 0.4], z=[0.2, 0.8])
    second = Fixed("b", y=[0.3, 0.7], z=[1.0, 0.0])
    both = InTurn(first, second, sure=0.8)
    said = both.probabilities(["x1", "y1", "z1"], unread)
    assert said.tolist() == [[0.9, 0.1], [0.3, 0.7], [0.2, 0.8]]  # 0.8 is sure enough
    assert second.asked == ["y1"]
    assert both.sources == ("a", "b")
    assert both.passed_on(["x1", "y1", "z1"], unread) == pytest.approx(1 / 3)


def test_a_mean_weighs_its_members_alike_and_reads_with_each_encoder_once() -> None:
    mean = Mean((Fixed("a", x=[0.9, 0.1]), Fixed("a", x=[0.5, 0.5]), Fixed("b", x=[0.1, 0.9])))
    assert np.exp(mean.logits(["x"], unread)) == pytest.approx(np.array([[0.5, 0.5]]), abs=1e-6)
    assert mean.sources == ("a", "b")


def test_neighbours_vote_and_leave_every_domain_possible() -> None:
    chance = np.random.default_rng(0)
    right = np.array([[1.0, 0.0]] * 30) + chance.normal(size=(30, 2)) * 0.05
    left = np.array([[-1.0, 0.0]] * 30) + chance.normal(size=(30, 2)) * 0.05
    vectors = np.concatenate([right, left]).astype(np.float32)
    targets = np.array([[1, 0]] * 30 + [[0, 1]] * 30, dtype=np.float32)
    votes = np.exp(Neighbours(vectors, targets).logits(np.array([[1, 0], [-1, 0]], dtype=np.float32)))
    assert votes == pytest.approx(np.array([[20.2, 0.2], [0.2, 20.2]]))


def test_fewer_texts_than_neighbours_all_vote() -> None:
    one = Neighbours(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32))
    assert np.exp(one.logits(np.eye(2, dtype=np.float32))) == pytest.approx(np.full((2, 2), 1.2))


def test_layers_are_what_scikit_learn_would_say() -> None:
    from sklearn.neural_network import MLPClassifier

    chance = np.random.default_rng(0)
    vectors = chance.normal(size=(90, 5)).astype(np.float32)
    labels = np.arange(90) % 3
    model = MLPClassifier((7,), solver="lbfgs", max_iter=15_000, alpha=1.0, random_state=0).fit(vectors, labels)
    layers = Layers(
        tuple(w.astype(np.float32) for w in model.coefs_), tuple(b.astype(np.float32) for b in model.intercepts_)
    )
    said = Calibrated(Dense("a", layers), 1.0).probabilities(["x"] * 90, lambda source, texts: vectors)
    assert said == pytest.approx(model.predict_proba(vectors), abs=1e-4)


def test_a_temperature_makes_less_sure_and_changes_no_answer() -> None:
    scorer = Mean((Fixed("a", x=[0.9, 0.1]),))
    warm, plain = (Calibrated(scorer, t).probabilities(["x"], unread)[0, 0] for t in (2.0, 1.0))
    assert plain == pytest.approx(0.9)
    assert 0.5 < warm < 0.8
