from __future__ import annotations

import json

import numpy as np
import pytest

from router.dataset import Row, load_corpus
from router.experts import parse_experts
from tests.benchmarks.adding_domains import FOLDER, SIZES, TOPICS, draws, experts_yaml, is_of, macro_f1, prompts_of
from tests.benchmarks.detector_methods import METHODS, Floats


def cloud(seed: int, centre: int, rows: int, dimensions: int = 12) -> Floats:
    vectors = np.eye(dimensions)[centre] + np.random.default_rng(seed).normal(size=(rows, dimensions)) * 0.15
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def test_each_domain_has_as_many_examples_as_tests_and_no_prompt_twice() -> None:
    assert {path.stem for path in FOLDER.glob("*.jsonl")} == set(TOPICS)
    for domain in TOPICS:
        assert len(prompts_of(domain, "example")) == len(prompts_of(domain, "test")) == 60
    prompts = [
        prompt.casefold() for domain in TOPICS for split in ("example", "test") for prompt in prompts_of(domain, split)
    ]
    assert len(set(prompts)) == len(prompts)


def test_no_test_prompt_stands_in_the_corpus() -> None:
    corpus = {row.text.casefold() for row in load_corpus()}
    assert not [p for domain in TOPICS for p in prompts_of(domain, "test") if " ".join(p.casefold().split()) in corpus]


def test_rows_say_their_language() -> None:
    for path in FOLDER.glob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for split in ("example", "test"):
            assert len({row["lang"] for row in rows if row["split"] == split}) >= 6


@pytest.mark.parametrize("domain", sorted(TOPICS))
def test_draws_are_examples_that_differ_from_draw_to_draw_and_come_again(domain: str) -> None:
    for size in SIZES:
        first, second = draws(domain, size, 2)
        assert len(set(first)) == size
        assert set(first) <= set(prompts_of(domain, "example"))
        assert set(first) != set(second)
        assert list(draws(domain, size, 2)) == [first, second]


def test_the_experts_file_holds_the_examples_to_the_letter() -> None:
    examples = ['says "no" \\ yes', "two\nlines: - and #", "ein Vertrag über 3 €", "合同", "{a: 1}"]
    file = parse_experts(experts_yaml({"legal": examples}))
    assert list(file.domains["legal"].examples) == examples
    assert file.domain_names == ("code", "math", "bio", "general", "legal")


def test_a_move_counts_as_right_where_the_row_is_of_the_domain() -> None:
    law = Row("May he keep the ring?", "general", tags=frozenset({"mmlu:professional_law"}))
    rows = [law, Row("Hi", "general"), Row("2+2", "math"), Row("sort", "code"), Row("cell", "bio")]
    assert macro_f1(rows, ["legal", "general", "math", "code", "bio"], "legal") == 1
    assert macro_f1(rows, ["legal", "general", "math", "code", "bio"]) < 1
    assert macro_f1(rows, ["general", "legal", "math", "code", "bio"], "legal") < 1


@pytest.mark.parametrize(
    ("domain", "row", "inside"),
    [
        ("legal", Row("x", "general", tags=frozenset({"mmlu:international_law"})), True),
        ("legal", Row("x", "general", tags=frozenset({"mmlu:philosophy"})), False),
        ("finance", Row("x", "general", tags=frozenset({"intent:freeze_account"})), True),
        ("finance", Row("x", "general", tags=frozenset({"intent:alarm"})), False),
        ("sql", Row("How do I write this SQL query?", "code"), True),
        ("sql", Row("How do I write this SQL query?", "general"), False),
        ("sql", Row("Select the verb from the list", "general"), False),
    ],
)
def test_what_is_of_a_domain_is_settled_by_tags_or_words(domain: str, row: Row, inside: bool) -> None:
    assert is_of(row, domain) is inside


@pytest.mark.parametrize("name", METHODS)
def test_every_way_to_detect_finds_what_its_examples_are_about(name: str) -> None:
    corpus = np.concatenate([cloud(centre, centre, 200) for centre in range(4)])
    chance = METHODS[name](corpus, cloud(10, 7, 10))
    assert chance(cloud(11, 7, 30)).min() > chance(corpus).max()
    assert (chance(cloud(11, 7, 30)) > 0.5).mean() > 0.9
