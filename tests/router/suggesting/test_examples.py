from __future__ import annotations

import numpy as np

from router.suggesting.examples import LONGEST, MOST, chosen


def around(count: int, angles: float = 1.0) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Unit vectors in the plane, the first in the middle of the others, further and further from it."""
    turns = np.array([(-1) ** i * angles * i / count for i in range(count)])
    return np.stack([np.cos(turns), np.sin(turns)], axis=1).astype(np.float32)


def test_examples_are_near_the_centre_and_unlike_one_another() -> None:
    vectors = around(100)
    places = chosen([f"text {i}" for i in range(100)], vectors)
    assert max(places) < 70
    alike = vectors[places] @ vectors[places].T
    assert np.triu(alike, 1).max() < 0.96
    assert chosen([f"text {i}" for i in range(100)], vectors) == places


def test_no_more_are_chosen_than_are_wanted_nor_than_there_are() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 30)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert len(chosen([f"text {i}" for i in range(60)], vectors)) == MOST
    assert chosen(["one", "two"], vectors[:2]) == [0, 1]
    assert chosen([], vectors[:0]) == []


def test_what_is_private_or_long_is_never_an_example() -> None:
    texts = ["mail jane@example.org", "x" * (LONGEST + 1), "a fine question", "call 0170 1234567"]
    vectors = np.eye(4, dtype=np.float32)
    assert chosen(texts, vectors) == [2]
    assert chosen([texts[0], texts[3]], vectors[:2]) == []


def test_of_texts_that_are_as_near_the_one_that_says_something_else_is_chosen() -> None:
    alike = np.array([[1.0, 0.3, 0.0], [1.0, -0.1, 0.3], [0.8, 0.0, -0.9], [1.0, -0.3, 0.0]], dtype=np.float32)
    alike /= np.linalg.norm(alike, axis=1, keepdims=True)
    assert chosen(["a", "b", "another", "c"], alike, most=2) == [0, 2]
