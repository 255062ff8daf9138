"""What the load asks: more different prompts than the router remembers, so that each one has to be classified."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from router.dataset import load_corpus
from router.routing import TURNS_KEPT

# Put behind a prompt they make another text of it, as users do.
ENDINGS = ("", " Please be brief.", " Explain it step by step, please.", " Thanks in advance!", " It is for my notes.")
KINDS = (
    "json",
    "stream",
    "each",
)  # whole, a stream that the upstream writes at once, and one that it writes event by event
MAX_TOKENS = 64


def prompts(limit: int | None = None, english: bool = False) -> list[str]:
    """Different texts: every prompt of the corpus that is no conversation, in an order by chance, with each ending.

    Asked in turn and from the start again there are more of them than the router remembers, which forgets the oldest first.
    """
    rows = [row for row in load_corpus() if len(row.turns) < 2 and (row.language == "en" or not english)]
    texts = sorted({row.text for row in rows})
    random.Random(0).shuffle(texts)  # noqa: S311 - it has to be repeatable, not secret
    ended = list(dict.fromkeys(text + ending for ending in ENDINGS for text in texts))
    if limit is None and len(ended) <= TURNS_KEPT:
        raise ValueError(f"{len(ended)} prompts are fewer than the {TURNS_KEPT} that a router remembers")
    return ended[:limit]


def body(prompt: str, model: str, kind: str) -> str:
    """One request for a chat completion."""
    fields: dict[str, object] = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": MAX_TOKENS,
    }
    if kind != "json":
        fields["stream"] = True
    if kind == "each":
        fields["each"] = True
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


class Bodies:
    """Files of request bodies, a line each, one file for a model and a kind."""

    def __init__(self, folder: Path, texts: Sequence[str]) -> None:
        self._folder, self._texts = folder, texts
        self._begin: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._texts)

    def path(self, model: str, kind: str) -> Path:
        path = self._folder / f"{model}.{kind}.jsonl"
        if not path.exists():
            path.write_text("".join(self._lines(model, kind)), "utf-8")
        return path

    def next(self, model: str) -> int:
        """Which prompt the next load for `model` begins with."""
        return self._begin.get(model, 0)

    def asked(self, model: str, count: int) -> None:
        """So many were: the next load goes on behind them."""
        self._begin[model] = (self.next(model) + count) % len(self._texts)

    def _lines(self, model: str, kind: str) -> Iterator[str]:
        for text in self._texts:
            yield body(text, model, kind) + "\n"
