from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from router.dataset import Row, load_corpus
from router.experts import parse_experts
from tests.benchmarks.adding_domains import SIZES
from tests.benchmarks.domain_prompts import FOLDER, TOPICS, alike, draws, experts_yaml, is_of, prompts_of


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


@pytest.mark.parametrize(
    ("domain", "row", "inside"),
    [
        ("legal", Row("x", "general", tags=frozenset({"mmlu:international_law"})), True),
        ("legal", Row("x", "general", tags=frozenset({"mmlu:philosophy"})), False),
        ("finance", Row("x", "general", tags=frozenset({"intent:freeze_account"})), True),
        ("finance", Row("x", "general", tags=frozenset({"intent:alarm"})), False),
        ("legal", Row("x", "general", topic="law"), True),
        ("legal", Row("x", "general", topic="travel", tags=frozenset({"tqa:Law"})), False),
        ("sql", Row("normal forms", "code", topic="databases-sql"), True),
        ("sql", Row("How do I write this SQL query?", "code"), True),
        ("sql", Row("How do I write this SQL query?", "general"), False),
        ("sql", Row("Select the verb from the list", "general"), False),
    ],
)
def test_what_is_of_a_domain_is_settled_by_topic_tags_or_words(domain: str, row: Row, inside: bool) -> None:
    assert is_of(row, domain) is inside


class Letters:
    """An encoder to which prompts with the same first letter are alike."""

    name, dimensions = "letters", 128

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.eye(128, dtype=np.float32)[[ord(text[0].lower()) % 128 for text in texts]]


def test_narrow_draws_are_an_example_and_those_nearest_to_it() -> None:
    for drawn in alike("sql", 3, 2, Letters()):
        prompts = [p for p in prompts_of("sql", "example") if p[0].lower() == drawn[0][0].lower()]
        assert len(set(drawn)) == 3
        assert set(drawn) <= set(prompts) or len(prompts) < 3
