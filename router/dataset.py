"""The training prompts: the authored corpus, one file a domain, and the examples of experts.yaml."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from router.conversation import clip, routed_text
from router.errors import CorpusError
from router.experts import BUILT_IN_DOMAINS, ExpertsFile

CORPUS = Path(__file__).parent / "corpus"
OWN_SET = Path(__file__).parent / "measuring" / "own.jsonl"  # authored as the corpus is, and never trained on
HELD_OUT_SHARE = 0.15
ALTERNATES = 0.3  # the share of a label that its alternates have together
INHERITED = 0.5  # how much of its domain a bare follow-up has from the turns before it
# Kinds of conversation: those in which the first turn has the domain of the answer, and those whose last turn says little.
SAME_TOPIC = frozenset({"followup", "continue", "detour", "system", "long", "retry"})
BARE = frozenset({"followup", "retry", "tool", "detour"})


@dataclass(frozen=True)
class Row:
    """One labelled prompt. `alternates` are labels that count as right as well; `part` and `tags` belong to evaluation sets.

    `turns` are the user's turns, oldest first, clipped; `turn_domains` the label of each of them, where the set says it.
    `messages` are those of the request that a row of a file stands for, as they are there.
    `topic` is finer than the domain; `kind` says what the last turn of a conversation is to the ones before it.
    """

    text: str
    domain: str
    alternates: frozenset[str] = frozenset()
    language: str = "en"
    style: str = "ask"
    part: str = ""
    tags: frozenset[str] = field(default=frozenset())
    id: str = ""
    origin: str = ""
    source: str = ""
    topic: str = ""
    kind: str = ""
    turns: tuple[str, ...] = ()
    turn_domains: tuple[str, ...] = ()
    messages: Sequence[Mapping[str, Any]] = field(default=(), compare=False, repr=False)

    @property
    def held_out(self) -> bool:
        """Whether the row is for measuring, not for training: settled by its text alone, so that it never moves."""
        return (
            int.from_bytes(hashlib.sha256(self.text.encode("utf-8", "replace")).digest()[:4], "big")
            < HELD_OUT_SHARE * 2**32
        )

    def accepts(self, domain: str) -> bool:
        return domain == self.domain or domain in self.alternates


@dataclass(frozen=True)
class Example:
    """One text to learn from. `shares` are the domains of its label, which sum to 1."""

    text: str
    shares: Mapping[str, float]
    topic: str = ""
    language: str = "en"
    held_out: bool = False

    def target(self, domains: Sequence[str]) -> list[float]:
        """The share of each of `domains`."""
        return [self.shares.get(domain, 0.0) for domain in domains]


def examples_of(row: Row) -> Iterator[Example]:
    """What a row teaches of texts read by themselves, as the classifier reads them: a conversation turn by turn.

    A follow-up says little of its domain when it stands alone, and is taught as that.
    """
    if len(row.turns) < 2:
        yield _example(row, row.text, _shares(row))
        return
    if row.kind in SAME_TOPIC:
        yield _example(row, row.turns[0], _shares(row))
    share = INHERITED if row.kind in BARE else 0.0
    shares = {domain: (1 - share) * part for domain, part in _shares(row).items()}
    for domain in BUILT_IN_DOMAINS:
        shares[domain] = shares.get(domain, 0.0) + share / len(BUILT_IN_DOMAINS)
    yield _example(row, row.turns[-1], shares)


def _example(row: Row, text: str, shares: Mapping[str, float]) -> Example:
    return Example(text, shares, row.topic, row.language, row.held_out)


def _shares(row: Row) -> dict[str, float]:
    """The label as shares: alternates have some together; where every domain is right, all have the same."""
    others = sorted(row.alternates - {row.domain})
    if len(others) + 1 >= len(BUILT_IN_DOMAINS):
        return dict.fromkeys((row.domain, *others), 1 / (len(others) + 1))
    return (
        {row.domain: 1.0}
        if not others
        else {row.domain: 1 - ALTERNATES} | dict.fromkeys(others, ALTERNATES / len(others))
    )


def load_corpus(folder: Path = CORPUS) -> list[Row]:
    """Every authored prompt. Raises CorpusError naming file and line of the first wrong row."""
    rows: list[Row] = []
    for path in sorted(folder.glob("*.jsonl")):
        rows.extend(read_rows(path))
    if not rows:
        raise CorpusError(f"no training prompts in {folder}")
    return rows


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a JSON-lines file, gzipped or not: `domain`, and `prompt` or `messages`. Raises CorpusError."""
    number = 0
    try:
        with opened(path) as lines:
            for line in lines:
                number += 1
                yield _row(json.loads(line))
    except (KeyError, TypeError, ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        why = "not a row with domain and prompt or messages"
        raise CorpusError(f"{path.name}:{max(1, number)}: {why} ({error})") from None
    except (OSError, EOFError, zlib.error) as error:
        raise CorpusError(f"{path.name} cannot be read after line {number}: {error}") from None


def opened(path: Path) -> TextIO:
    """A text file, gzipped or not."""
    if path.suffix == ".gz":
        return io.TextIOWrapper(gzip.GzipFile(path), encoding="utf-8")
    return path.open(encoding="utf-8")


def _row(raw: Mapping[str, Any]) -> Row:
    _check(isinstance(raw, dict), "not an object")
    prompt, domain = raw.get("prompt"), raw["domain"]
    _check(isinstance(domain, str) and bool(domain.strip()), "domain is not text")
    _check(prompt is None or isinstance(prompt, str), "prompt is not text")
    messages = raw["messages"] if prompt is None else [{"role": "user", "content": prompt}]
    turns = user_turns(messages)
    text = routed_text(turns)
    _check(bool(text), "no text")
    for name in ("alt", "tags", "turn_domains"):
        _check(isinstance(raw.get(name) or [], list), f"{name} is not a list")
    return Row(
        text=text,
        domain=domain,
        alternates=frozenset(map(str, raw.get("alt") or ())),
        language=str(raw.get("lang", "en")),
        style=str(raw.get("style", "ask")),
        part=str(raw.get("part", "")),
        tags=frozenset(map(str, raw.get("tags") or ())),
        id=str(raw.get("id", "")),
        origin=str(raw.get("of") or ""),
        source=str(raw.get("source") or ""),
        topic=str(raw.get("topic") or ""),
        kind=str(raw.get("kind") or ""),
        turns=tuple(clip(turn) for turn in turns if turn.strip()),
        turn_domains=_turn_domains(raw, turns),
        messages=messages,
    )


def _turn_domains(raw: Mapping[str, Any], turns: Sequence[str]) -> tuple[str, ...]:
    """The labels of the turns that say something, none where the row has no such labels."""
    labels = raw.get("turn_domains") or []
    _check(len(labels) in (0, len(turns)), f"turn_domains has {len(labels)} labels for {len(turns)} user turns")
    return tuple(str(label) for label, turn in zip(labels, turns, strict=False) if turn.strip())


def _check(fine: bool, why: str) -> None:
    if not fine:
        raise ValueError(why)


def user_turns(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """The texts of the user's messages in OpenAI's shape, oldest first; parts other than text count for nothing.

    Raises ValueError where that is not a list of messages.
    """
    _check(
        isinstance(messages, list) and all(isinstance(m, dict) for m in messages), "messages is not a list of messages"
    )
    return [message_text(m.get("content")) for m in messages if m.get("role") == "user"]


def message_text(content: Any) -> str:
    """The text of a message's content: a string, or the text parts of a list joined by newlines."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return "\n".join(text for text in parts if isinstance(text, str))
    return ""


def training_rows(file: ExpertsFile | None = None, corpus: Sequence[Row] | None = None) -> list[Row]:
    """What a router for `file` is trained on: the corpus, then the file's own examples."""
    rows = list(load_corpus() if corpus is None else corpus)
    if file is None:
        return rows
    own = [Row(clip(e), name) for name, domain in file.domains.items() for e in domain.examples]
    return rows + own


def corpus_hash(rows: Iterable[Row]) -> str:
    """Names a training set: 12 hexadecimal digits over texts, labels, alternates and kinds, in any order of rows."""
    lines = sorted(json.dumps([row.text, row.domain, sorted(row.alternates), row.kind]) for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def domains_of(rows: Iterable[Row]) -> tuple[str, ...]:
    """The labels of `rows`, built-in ones first, in the order that ExpertsFile.domain_names uses."""
    found = {row.domain for row in rows}
    return (*(d for d in BUILT_IN_DOMAINS if d in found), *sorted(found.difference(BUILT_IN_DOMAINS)))
