"""Suggestions of made-up traffic, and what is pasted of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from router.cataloguing.catalog import load_catalog
from router.errors import ConfigError
from router.experts import ExpertsFile, load_experts, parse_experts
from router.sources import read_sources
from router.suggesting.effect import pasted, snippet, with_suggestions
from router.suggesting.pool import Background, Pool
from router.suggesting.suggestion import LEAST_POOL, Suggestion, suggestions

SHIPPED = Path(__file__).parents[3] / "experts.yaml"
ODD = '" # ${HOME} \\ \x1b[31m: - \u202e: {yes}'


def near(direction: int, count: int, seed: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Vectors of texts about one thing, shape (count, 32)."""
    vectors = 0.12 * np.random.default_rng(seed).normal(size=(count, 32))
    vectors[:, direction] += 1
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def background() -> Background:
    vectors = np.concatenate([near(i, 50, i) for i in range(8)])
    topics = [f"topic-{i}" for i in range(8) for _ in range(50)]
    texts = tuple(f"something about number {i}" for i in range(400))
    return Background(texts, vectors, np.array(["general"] * 400), np.array(topics))


def traffic(words: str = "kiln glaze pottery", extra: str = "", count: int = 30) -> Pool:
    """So many prompts about pottery among ordinary ones."""
    ordinary = np.concatenate([near(i, 8, 100 + i) for i in range(8)])
    texts = [f"ordinary {i} of them" for i in range(64)] + [
        f"{words} question {chr(97 + i % 26)}{i}{extra}" for i in range(count)
    ]
    size = len(texts)
    return Pool(
        tuple(texts),
        (1,) * 64 + (3,) * count,
        np.concatenate([ordinary, near(20, count, 9)]),
        ("general",) * size,
        ("en",) * size,
        size,
        size,
        {},
        0,
        0,
    )


def last(pool: Pool, count: int) -> Pool:
    """Its last texts alone, which are about pottery."""
    return replace(
        pool,
        texts=pool.texts[-count:],
        counts=pool.counts[-count:],
        vectors=pool.vectors[-count:],
        domains=pool.domains[-count:],
        languages=pool.languages[-count:],
    )


def suggested(pool: Pool, file: ExpertsFile | None = None) -> list[Suggestion]:
    return suggestions(pool, background(), file or load_experts(SHIPPED), load_catalog(), 24)


def test_a_suggestion_has_a_name_sizes_examples_and_a_model() -> None:
    (one,) = suggested(traffic())
    assert one.name == one.expert == "glaze"  # of three words as telling the first by the alphabet
    assert set(one.terms) >= {"kiln", "glaze", "pottery"}
    assert 25 <= len(one.members) <= 32
    assert one.requests >= 3 * 25
    assert 5 <= len(one.examples) <= 16
    assert all("kiln" in example for example in one.examples)
    assert one.match is not None
    assert one.match.task is None
    assert one.described()["model"]["id"] == one.match.key


def test_words_that_the_corpus_has_in_the_same_topic_tell_of_it_none_the_less() -> None:
    plain = background()
    crafts = Background(
        (*plain.texts, *["kiln"] * 60),
        np.concatenate([plain.vectors, near(20, 60, 5)]),
        np.array(["general"] * 460),
        np.array([*plain.topics, *["crafts"] * 60]),
    )
    (one,) = suggestions(
        traffic("kiln for some such pot then and there", count=60), crafts, load_experts(SHIPPED), load_catalog(), 24
    )
    assert one.name == "crafts"
    assert "kiln" in one.terms


def test_ordinary_traffic_calls_for_nothing() -> None:
    assert suggested(traffic(count=0)) == []


def test_too_little_traffic_calls_for_nothing_whatever_it_is_about() -> None:
    assert len(suggested(last(traffic(), LEAST_POOL))) == 1
    assert suggested(last(traffic(), LEAST_POOL - 1)) == []


def test_what_is_private_makes_no_domain() -> None:
    assert suggested(traffic(extra=" of jane@example.org")) == []


def test_names_that_the_file_has_are_not_proposed() -> None:
    text = pasted(SHIPPED.read_text("utf-8"), suggested(traffic()))
    (second,) = suggested(traffic(), parse_experts(text))
    assert second.name not in ("glaze", *parse_experts(SHIPPED.read_text("utf-8")).domain_names)
    assert second.expert not in parse_experts(text).experts


def test_what_is_pasted_is_read_and_the_rest_stays_as_it_was() -> None:
    before = SHIPPED.read_text("utf-8")
    found = suggested(traffic(words=f"kiln glaze {ODD}"))
    text = pasted(before, found)
    file = parse_experts(text)
    (one,) = found
    assert file.domains[one.name].examples == one.examples
    assert file.experts[one.expert].domains == {one.name: 0.9}
    assert file.experts[one.expert].fallbacks == ("general",)
    assert all(line in text.splitlines() for line in before.splitlines())
    assert with_suggestions(read_sources(SHIPPED), found).domains == file.domains


def test_the_snippet_alone_is_a_file_that_extends_the_other(tmp_path: Path) -> None:
    (tmp_path / "experts.yaml").write_bytes(SHIPPED.read_bytes())
    found = suggested(traffic(words=f"kiln glaze {ODD}"))
    lines = ["version: 1", "extends: experts.yaml", *snippet(found)]
    (tmp_path / "new.yaml").write_text("\n".join(lines) + "\n", "utf-8")
    file = load_experts(tmp_path / "new.yaml")
    assert file.domains[found[0].name].examples == found[0].examples
    assert len(file.experts) == 5


def test_a_file_that_cannot_be_added_to_is_told(tmp_path: Path) -> None:
    text = "version: 1\nexperts: {general: {model: m, domains: [general], upstream: {vllm: [http://127.0.0.1:1/v1]}}}\n"
    with pytest.raises(ConfigError):
        pasted(text, suggested(traffic()))
