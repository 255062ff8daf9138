"""An authored row, as it stands in the corpus or in the evaluation set, and everything that may be wrong with one.

Reading for training (router/dataset.py) stops at the first row that it cannot use. Here every row is looked at, and more
strictly: fields and values are those that the authors agreed on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from router.dataset import message_text, opened
from router.experts import BUILT_IN_DOMAINS
from router.language import READABLE


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FIELDS = _words("prompt messages domain alt lang style topic kind why")
MEASURED_FIELDS = FIELDS | {"id", "part", "turn_domains"}
REQUIRED = ("lang", "style")
ROLES = ("system", "user", "assistant", "tool")
LANGUAGES = READABLE | {"sw"}
CONVERSATION = "conversation"
STYLES = _words(
    "ask fix explain translate summarise prove plan write compare chat exam options ticket log homework abstract search word "
    "passage roleplay command complete data conversation"
)
KINDS = _words("followup continue switch detour mixed tool system long retry")
TOPICS = {
    "code": _words(
        "algorithms python web-frontend web-backend systems databases-sql shell devops data-science ml debugging code-review "
        "cs-theory security networks regex-spreadsheets mobile-games it-support software-design"
    ),
    "math": _words(
        "arithmetic word-problem algebra geometry calculus linear-algebra number-theory probability-combinatorics statistics "
        "logic abstract-algebra analysis discrete optimisation proof finance-math applied"
    ),
    "bio": _words(
        "clinical pharmacology anatomy-physiology genetics molecular-cell microbiology-virology immunology ecology-evolution "
        "botany-zoology nutrition public-health mental-health veterinary bioinformatics biomedical-research health-chat"
    ),
    "general": _words(
        "history geography law finance business politics philosophy-ethics religion psychology-sociology language-literature "
        "arts-music-film physics chemistry astronomy-earth engineering trivia misconception writing rewriting summarise "
        "translate roleplay assistant-command travel food-home shopping-advice sports-games reasoning-puzzle chitchat "
        "education-career relationships extraction"
    ),
}
# Alternates that a topic always has, by the rule that the authors agreed on: they need no reason of their own.
RULED: Mapping[str, frozenset[str]] = {
    "physics": _words("math"), "chemistry": _words("bio math"), "statistics": _words("general"), "logic": _words("general"),
}  # fmt: skip
DOMAIN_OF_TOPIC = {topic: domain for domain, topics in TOPICS.items() for topic in topics}
_VALUES = {"lang": LANGUAGES, "style": STYLES, "topic": frozenset(DOMAIN_OF_TOPIC), "kind": KINDS}
# What a program that fills in or varies a text leaves behind.
_MACHINE_MADE = re.compile(
    r"\[(?:insert|your|placeholder)\b[^\]\n]*\]|\(variation \d|lorem ipsum|as an ai language model|^prompt #?\d+\s*[:.)]"
    r"|[\ufffd\ufeff\u200b\x00-\x08]",
    re.IGNORECASE,
)


@dataclass(frozen=True, order=True)
class Finding:
    """One thing wrong. `line` counts from 1, and is 0 where the whole file or folder is meant; `check` names the rule."""

    file: str
    line: int
    check: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.check}: {self.message}"

    def described(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class AuthoredRow:
    """A row that has a text, and where it stands."""

    file: str
    line: int
    raw: Mapping[str, Any]

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def domain(self) -> str:
        return str(self.raw.get("domain"))

    @property
    def is_conversation(self) -> bool:
        return "prompt" not in self.raw

    @cached_property
    def turns(self) -> tuple[str, ...]:
        """What the user says, oldest first: the prompt, or the user's messages."""
        if not self.is_conversation:
            return (str(self.raw["prompt"]),)
        return tuple(message_text(m.get("content")) for m in self.raw["messages"] if m.get("role") == "user")

    @cached_property
    def whole(self) -> str:
        """The prompt, or all that is said in the conversation."""
        if not self.is_conversation:
            return self.turns[0]
        return "\n".join(message_text(message.get("content")) for message in self.raw["messages"])

    @property
    def alternates(self) -> tuple[str, ...]:
        """The other labels that are right as well."""
        listed = self.raw.get("alt")
        return tuple(map(str, listed)) if isinstance(listed, list) else ()

    @property
    def explained_by(self) -> str:
        """What says why its alternates are right as well."""
        if "why" in self.raw:
            return "why"
        ruled = RULED.get(str(self.raw.get("topic")), frozenset[str]())
        return "rule of its topic" if ruled.issuperset(self.alternates) else "nothing"

    def finding(self, check: str, message: str) -> Finding:
        return Finding(self.file, self.line, check, message)


def short_name(path: Path) -> str:
    """The file and its folder, as in corpus/code.jsonl."""
    return f"{path.parent.name}/{path.name}" if path.parent.name else path.name


def read_authored(path: Path, fields: frozenset[str] = FIELDS) -> tuple[list[AuthoredRow], list[Finding]]:
    """The rows of a file that have a text, and what is wrong with any. Raises OSError, UnicodeDecodeError."""
    rows: list[AuthoredRow] = []
    findings: list[Finding] = []
    with opened(path) as lines:
        for number, line in enumerate(lines, 1):
            row, wrong = _read(short_name(path), number, line, fields)
            findings += wrong
            if row:
                rows.append(row)
    return rows, findings


def _read(file: str, number: int, line: str, fields: frozenset[str]) -> tuple[AuthoredRow | None, list[Finding]]:
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError) as error:
        return None, [Finding(file, number, "row", f"not JSON: {error}")]
    if not isinstance(raw, dict):
        return None, [Finding(file, number, "row", "not an object")]
    without_text = list(_text_complaints(raw))
    row = None if without_text else AuthoredRow(file, number, raw)
    complaints = [*without_text, *complaints_of(raw, fields)]
    findings = [Finding(file, number, "row", complaint) for complaint in complaints]
    if row and (left := _MACHINE_MADE.search(row.whole)):
        findings.append(row.finding("machine-made", f"a program's left-over stands in it: {left.group()!r}"))
    return row, findings


def complaints_of(raw: Mapping[str, Any], fields: frozenset[str] = FIELDS) -> Iterator[str]:
    """What is wrong with the fields of a row, other than its text."""
    if unknown := sorted(raw.keys() - fields):
        yield f"unknown field {unknown[0]!r}{_hint(unknown[0], fields)}"
    for name in REQUIRED:
        if name not in raw:
            yield f"no {name}"
    for name, values in _VALUES.items():
        if name in raw and not (isinstance(raw[name], str) and raw[name] in values):
            yield f"unknown {name} {raw[name]!r}{_hint(str(raw[name]), values)}"
    if raw.get("domain") not in BUILT_IN_DOMAINS:
        yield f"unknown domain {raw.get('domain')!r}; there are {', '.join(BUILT_IN_DOMAINS)}"
    yield from _label_complaints(raw)
    if "turn_domains" in raw:
        yield from _turn_complaints(raw)
    if "why" in raw and not (isinstance(raw["why"], str) and raw["why"].strip()):
        yield "why is empty; give the reason or leave the field out"
    if ("messages" in raw) != ("kind" in raw):
        yield "a conversation has a kind, and nothing else has"
    if fields == FIELDS and ("messages" in raw) != (raw.get("style") == CONVERSATION):
        yield f"a conversation has the style {CONVERSATION}, and nothing else has"


def _hint(word: str, known: frozenset[str]) -> str:
    """The nearest known word; where there is none, those known if they are few."""
    if near := get_close_matches(word, sorted(known), 1):
        return f"; did you mean {near[0]!r}?"
    return (
        f"; there are {', '.join(sorted(known))}"
        if len(known) <= len(FIELDS) + 2
        else "; see router/authoring/authored.py"
    )


def _label_complaints(raw: Mapping[str, Any]) -> Iterator[str]:
    """About alternates, and about a topic that belongs to a domain which is not among the row's."""
    others = raw.get("alt", [])
    if not isinstance(others, list):
        yield "alt is not a list"
        return
    if "alt" in raw and not others:
        yield "alt is empty; leave the field out"
    if strange := [other for other in others if other not in BUILT_IN_DOMAINS]:
        yield f"unknown alternate {strange[0]!r}"
    if "domain" in raw and raw["domain"] in others:
        yield f"the alternate {raw['domain']!r} is the domain itself"
    if len({str(other) for other in others}) < len(others):
        yield "an alternate stands twice"
    topic = raw.get("topic")
    home = DOMAIN_OF_TOPIC.get(topic) if isinstance(topic, str) else None
    if home and home != raw.get("domain") and home not in others:
        yield f"topic {topic} is of {home}, which is neither the domain nor an alternate"


def _turn_complaints(raw: Mapping[str, Any]) -> Iterator[str]:
    """About the labels of the user's turns, of which the last is the row's."""
    labels, messages = raw["turn_domains"], raw.get("messages")
    if not isinstance(labels, list) or not all(label in BUILT_IN_DOMAINS for label in labels):
        yield "turn_domains is not a list of domains"
    elif labels[-1:] != [raw.get("domain")]:
        yield "the last of turn_domains is not the domain"
    said = (
        [m for m in messages if isinstance(m, dict) and m.get("role") == "user"] if isinstance(messages, list) else []
    )
    if isinstance(labels, list) and len(labels) != len(said):
        yield f"turn_domains has {len(labels)} labels for {len(said)} user turns"


def _text_complaints(raw: Mapping[str, Any]) -> Iterator[str]:
    if "prompt" in raw:
        if "messages" in raw:
            yield "prompt and messages; a row has one of them"
        elif not isinstance(raw["prompt"], str):
            yield "prompt is not text"
        elif not raw["prompt"].strip():
            yield "prompt is empty"
        return
    messages = raw.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        yield "no prompt, and messages is not a list of messages"
        return
    for number, message in enumerate(messages, 1):
        if message.get("role") not in ROLES:
            yield f"message {number}: unknown role {message.get('role')!r}"
        if not message_text(message.get("content")).strip():
            yield f"message {number}: no text"
    if not any(message.get("role") == "user" for message in messages):
        yield "the user says nothing"
    last = messages[-1].get("role")
    if last != "user" and not (last == "tool" and raw.get("kind") == "tool"):
        yield f"the last message is from {last!r}, not from the user"
