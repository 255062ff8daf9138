from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from router.suggesting.clusters import LEAST_TEXTS, clustered
from router.suggesting.pool import Background

DIMENSIONS = 48
TOPICS = ("cooking", "travel", "history", "music", "sports", "law")
SPREAD = 0.55  # how far a text is from the direction of its topic

Floats = NDArray[np.float32]


def direction(topic: str) -> Floats:
    vector = np.random.default_rng(sum(map(ord, topic))).normal(size=DIMENSIONS)
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


def about(topic: str, count: int, seed: int = 0, spread: float = SPREAD) -> Floats:
    """Vectors of so many texts about it, shape (count, DIMENSIONS)."""
    noise = np.random.default_rng([seed, sum(map(ord, topic))]).normal(size=(count, DIMENSIONS)) / DIMENSIONS**0.5
    vectors = (1 - spread) * direction(topic) + spread * noise
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def mixed(sizes: Mapping[str, int], seed: int = 1, spread: float = SPREAD) -> tuple[Floats, list[str]]:
    """Vectors, and what each is about."""
    return (
        np.concatenate([about(topic, size, seed, spread) for topic, size in sizes.items()]),
        [topic for topic, size in sizes.items() for _ in range(size)],
    )


def corpus_of(spread: float) -> Background:
    """General prompts about several things, few of them about law, and some about code."""
    vectors, topics = mixed(dict.fromkeys(TOPICS, 60) | {"law": 12, "code": 100}, 0, spread)
    domains = ["code" if topic == "code" else "general" for topic in topics]
    return Background(tuple(topics), vectors, np.array(domains), np.array(topics))


@pytest.fixture(scope="module")
def corpus() -> Background:
    return corpus_of(SPREAD)


def found(corpus: Background, sizes: Mapping[str, int], seed: int = 1) -> list[dict[str, int]]:
    """What the members of each cluster are about."""
    vectors, topics = mixed(sizes, seed)
    clusters = clustered(vectors, ["general"] * len(topics), corpus)
    return [{t: [topics[i] for i in c.members].count(t) for t in {topics[i] for i in c.members}} for c in clusters]


ORDINARY = dict.fromkeys(TOPICS, 20) | {"law": 4}


def test_traffic_like_the_corpus_has_no_cluster(corpus: Background) -> None:
    assert found(corpus, ORDINARY) == []


def test_what_the_corpus_has_nothing_of_is_found(corpus: Background) -> None:
    (gardens,) = found(corpus, {**ORDINARY, "gardens": 20})
    assert gardens["gardens"] >= 16
    assert sum(gardens.values()) - gardens["gardens"] <= 2


def test_what_the_corpus_has_little_of_is_found_by_how_much_more_there_is(corpus: Background) -> None:
    vectors, topics = mixed({**ORDINARY, "law": 40})
    (cluster,) = clustered(vectors, ["general"] * len(topics), corpus)
    assert {topics[i] for i in cluster.members} == {"law"}
    assert 4 < cluster.lift < 20  # 40 of 140 against 12 of 312: 7.4 times
    assert {str(corpus.topics[i]) for i in cluster.neighbours[:10]} == {"law"}


def test_a_little_more_of_what_the_corpus_has_is_no_domain() -> None:
    """350 of 1,390 against 60 of 312 are 1.3 times as frequent, and of so many surely no chance."""
    vectors, topics = mixed(dict.fromkeys(TOPICS, 200) | {"law": 40, "cooking": 350}, spread=0.4)
    assert clustered(vectors, ["general"] * len(topics), corpus_of(0.4)) == []


def test_parts_that_the_corpus_has_under_one_topic_are_one_cluster(corpus: Background) -> None:
    """Courts and leases, each a direction of its own, are both law."""
    more, what = mixed({"courts": 30, "leases": 30}, seed=0)
    topics = np.array(["law"] * 60)
    joined = Background(
        (*corpus.texts, *what),
        np.concatenate([corpus.vectors, more]),
        np.array([*corpus.domains, *["general"] * 60]),
        np.array([*corpus.topics, *topics]),
    )
    vectors, about_what = mixed({**ORDINARY, "courts": 60, "leases": 60})
    (law,) = clustered(vectors, ["general"] * len(about_what), joined)
    assert {about_what[i] for i in law.members} == {"courts", "leases"}


def test_two_new_things_are_two_clusters_the_larger_first(corpus: Background) -> None:
    first, second = found(corpus, {**ORDINARY, "gardens": 40, "taxes": 25})
    assert max(first, key=first.__getitem__) == "gardens"
    assert max(second, key=second.__getitem__) == "taxes"


def test_one_thing_and_nothing_else_is_one_cluster(corpus: Background) -> None:
    (whole,) = found(corpus, {"law": 60})
    assert whole["law"] >= 50


def test_too_few_texts_are_no_cluster(corpus: Background) -> None:
    assert found(corpus, {**ORDINARY, "gardens": LEAST_TEXTS - 1}) == []
    assert clustered(np.zeros((0, DIMENSIONS), dtype=np.float32), [], corpus) == []


def test_what_is_much_in_the_corpus_under_another_label_is_weighed_by_the_label_of_the_traffic(
    corpus: Background,
) -> None:
    """Prompts about code that are taken for general ones are new among those."""
    vectors, _ = mixed({**ORDINARY, "code": 30})
    as_general = clustered(vectors, ["general"] * len(vectors), corpus)
    as_code = clustered(vectors, ["general"] * (len(vectors) - 30) + ["code"] * 30, corpus)
    assert [len(cluster.members) > 20 for cluster in as_general] == [True]
    assert as_code == []


def test_texts_that_scatter_are_no_cluster(corpus: Background) -> None:
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(80, DIMENSIONS)).astype(np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    assert clustered(np.concatenate([mixed(ORDINARY)[0], noise]), ["general"] * 184, corpus) == []


def test_members_stand_by_their_nearness_and_every_run_is_the_same(corpus: Background) -> None:
    vectors, topics = mixed({**ORDINARY, "gardens": 30})
    (one,), (other,) = (clustered(vectors, ["general"] * len(topics), corpus) for _ in range(2))
    assert one.members.tolist() == other.members.tolist()
    middle = vectors[one.members].mean(axis=0) - corpus.vectors[corpus.domains == "general"].mean(axis=0)
    near = (vectors[one.members] - corpus.vectors[corpus.domains == "general"].mean(axis=0)) @ middle
    assert np.corrcoef(near, -np.arange(len(near)))[0, 1] > 0.5


@given(st.dictionaries(st.sampled_from(("gardens", "taxes", *TOPICS)), st.integers(1, 40), max_size=8))
@settings(max_examples=20)
def test_no_text_is_in_two_clusters_and_none_is_small(corpus: Background, sizes: dict[str, int]) -> None:
    vectors, topics = mixed({"cooking": 5, **sizes})
    clusters = clustered(vectors, ["general"] * len(topics), corpus)
    members = [place for cluster in clusters for place in cluster.members.tolist()]
    assert len(set(members)) == len(members)
    assert all(len(cluster.members) >= LEAST_TEXTS and cluster.lift >= 1.2 for cluster in clusters)
