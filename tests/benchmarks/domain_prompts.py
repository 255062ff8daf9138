"""The domains that the benchmark adds: their prompts, draws of examples from them, and which rows of other sets are of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from router.dataset import Row
from router.encoder import Encoder
from router.experts import BUILT_IN_DOMAINS

FOLDER = Path(__file__).parent / "domains"
# Topics of the corpus that are the domain, and those of which some prompts are, which count neither way.
TOPICS = {"legal": {"law"}, "finance": {"finance", "economics"}, "sql": {"databases-sql"}}
BORDER = {"legal": set[str](), "finance": {"business", "finance-math"}, "sql": {"data-science"}}
# Which prompts of a set without topics are of the domain, by its tags, or by what the prompt says.
TAGS = {
    "legal": re.compile(r"mmlu:.*(law|jurisprudence)|(expertqa|tqa):Law$"),
    "finance": re.compile(
        r"mmlu:.*(account|econom)|(expertqa|tqa):(Business|Econom|Financ)|intent:(.*account|.*card|.*credit|.*pin_|payday"
        r"|direct_deposit|income|order_checks|bill_|.*balance|rollover|taxes|transfer|exchange_rate|interest|apr|min_pay)"
    ),
}
SAYS = {
    "sql": re.compile(r"\bsql\b|sqlite|postgres|\bselect\b.*\bfrom\b|(primary|foreign) key|relational", re.I | re.S)
}


def prompts_of(domain: str, split: str) -> list[str]:
    """The prompts written for `domain`; `split` is `example`, to learn from, or `test`, to measure on."""
    lines = (FOLDER / f"{domain}.jsonl").read_text("utf-8").splitlines()
    return [row["prompt"] for row in map(json.loads, lines) if row["split"] == split]


def draws(domain: str, size: int, count: int) -> Iterator[list[str]]:
    """`count` draws of `size` examples, the same in every run."""
    prompts = prompts_of(domain, "example")
    for seed in range(count):
        chosen = np.random.default_rng([sorted(TOPICS).index(domain), size, seed]).permutation(len(prompts))[:size]
        yield [prompts[i] for i in chosen]


def alike(domain: str, size: int, count: int, encoder: Encoder) -> Iterator[list[str]]:
    """Narrow draws: one example and those nearest to it."""
    prompts = prompts_of(domain, "example")
    vectors = encoder.encode(prompts)
    for first in np.random.default_rng(0).permutation(len(prompts))[:count]:
        yield [prompts[i] for i in np.argsort(-(vectors @ vectors[first]))[:size]]


def is_of(row: Row, domain: str) -> bool:
    """Whether a row of an evaluation set is of the added domain."""
    if row.topic:
        return row.topic in TOPICS[domain]
    if domain in TAGS:
        return any(TAGS[domain].match(tag) for tag in row.tags)
    return row.accepts("code") and SAYS[domain].search(row.text) is not None


def experts_yaml(examples: Mapping[str, Sequence[str]]) -> str:
    """An experts.yaml that adds domains, each with its examples."""
    served = (*BUILT_IN_DOMAINS, *examples)
    lines = ["version: 1", "domains:"]
    for domain, prompts in examples.items():
        lines += [f"  {domain}:", "    examples:", *(f"      - {json.dumps(prompt)}" for prompt in prompts)]
    lines.append("experts:")
    lines += [f"  {d}: {{model: m, domains: [{d}], upstream: {{vllm: [http://127.0.0.1:1/v1]}}}}" for d in served]
    return "\n".join(lines)
