"""The linter of the training data: every row of the corpus and of the own evaluation set, every line of the glossary.

A router learns nothing from the twentieth rephrasing of one prompt, too much from a template multiplied out, and what it was
trained on measures nothing. So besides rows that are malformed, it finds texts that say nearly the same, evaluation rows that
leaked into the corpus, and a corpus that is out of balance.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router.authoring.authored import FIELDS, MEASURED_FIELDS, AuthoredRow, Finding, read_authored, short_name
from router.authoring.balance import Balance
from router.authoring.likeness import Likeness, Shingled, normalised
from router.dataset import CORPUS, OWN_SET
from router.errors import CorpusError
from router.experts import BUILT_IN_DOMAINS
from router.training.glossary import GLOSSARY

# Chosen by reading what was found in 13,000 authored rows: from 0.5 on most pairs ask one question twice, below it they have
# little more than a phrase in common.
NEAR = 0.50  # the Jaccard index from which two texts say nearly the same
CONTAINED = 0.85  # or so much of a text stands in the other one ...
LEAST_CONTAINED = 40  # ... if it has so many characters
LEAST_TURN = 20  # characters of a user's turn that is compared with evaluation sets by itself
OPENING = 40  # characters
MOST_OPENINGS = len(
    BUILT_IN_DOMAINS
)  # rows that begin alike: one frame with a question of each domain teaches something
MOST_SKELETONS = 2  # rows that are the same but for numbers and names
LEAST_SKELETON = 15  # characters
MOST_GLOSS_WORDS = 3
EXCERPT = 60

_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
# Capitalised words that do not begin a sentence.
_NAME = re.compile(r"(?<=[^\W\d_A-Z][ ,;:(])(?:[A-ZÀ-Þ][\w’'-]*)(?: [A-ZÀ-Þ][\w’'-]*)*")


@dataclass(frozen=True)
class Report:
    """What the corpus is made of, and everything found wrong, by file and line."""

    balance: Balance
    findings: tuple[Finding, ...]

    def described(self) -> dict[str, Any]:
        return {
            "ok": not self.findings,
            **self.balance.described(),
            "problems": [finding.described() for finding in self.findings],
        }


def lint(corpus: Path = CORPUS, glossary: Path = GLOSSARY, own: Path = OWN_SET, against: Sequence[Path] = ()) -> Report:
    """Everything wrong with a corpus, a glossary and an evaluation set; `against` are further sets that must not leak.

    Raises CorpusError where a file cannot be read at all.
    """
    rows, findings = _read_all(sorted(corpus.glob("*.jsonl")), FIELDS)
    if not rows and not findings:
        raise CorpusError(f"no training prompts in {corpus}")
    own_rows, wrong = _read_all([own], MEASURED_FIELDS)
    other_rows, _ = _read_all(against, MEASURED_FIELDS)
    balance = Balance.of(rows)
    findings += [*wrong, *_ids(own_rows), *_doubles(rows), *_doubles(own_rows)]
    findings += [*_alike(rows, [*own_rows, *other_rows]), *_templates(rows)]
    findings += [Finding(corpus.name, 0, "balance", complaint) for complaint in balance.complaints()]
    for path in sorted(glossary.glob("*.tsv")):
        findings += _glossary(short_name(path), _text(path))
    return Report(balance, tuple(sorted(findings)))


def _read_all(paths: Iterable[Path], fields: frozenset[str]) -> tuple[list[AuthoredRow], list[Finding]]:
    rows: list[AuthoredRow] = []
    findings: list[Finding] = []
    for path in paths:
        try:
            more, wrong = read_authored(path, fields)
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise CorpusError(f"{path} cannot be read: {error}") from None
        rows += more
        findings += wrong
    return rows, findings


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path} cannot be read: {error}") from None


def _ids(rows: Iterable[AuthoredRow]) -> Iterator[Finding]:
    first: dict[str, AuthoredRow] = {}
    for row in rows:
        name = row.raw.get("id")
        if not isinstance(name, str) or not name:
            yield row.finding("row", "a row of an evaluation set has an id")
        elif (before := first.setdefault(name, row)) is not row:
            yield row.finding("row", f"the id {name!r} is that of {before.place}")


def _doubles(rows: Iterable[AuthoredRow]) -> Iterator[Finding]:
    """Rows whose texts are the same but for form, case, punctuation and white space."""
    first: dict[str, AuthoredRow] = {}
    for row in rows:
        before = first.setdefault(_key(row.whole), row)
        if before is row:
            continue
        if before.domain != row.domain:
            yield row.finding("two-domains", f"{row.domain} here, {before.domain} in {before.place}: {_excerpt(row)}")
        else:
            yield row.finding("duplicate", f"the same as {before.place}: {_excerpt(row)}")


def _key(text: str) -> str:
    return normalised(text) or " ".join(text.split())


def _excerpt(row: AuthoredRow) -> str:
    text = " ".join(row.whole.split())
    return repr(text if len(text) <= EXCERPT else text[:EXCERPT] + "…")


@dataclass(frozen=True)
class _Text:
    """A normalised text of a row: the whole of it, or one turn of the user's."""

    row: AuthoredRow
    text: str
    is_whole: bool = True


def _alike(rows: Sequence[AuthoredRow], measured: Sequence[AuthoredRow]) -> Iterator[Finding]:
    """Near duplicates within the corpus, and rows of evaluation sets that are in it or nearly so.

    Within the corpus whole rows are compared. Against evaluation sets each turn of a conversation is too: it is trained on.
    """
    own = [_Text(row, _key(row.whole)) for row in rows] + list(_long_turns(rows))
    texts = own + [_Text(row, _key(row.whole)) for row in measured] + list(_long_turns(measured))
    places = {text.text: text.row for text in own if text.is_whole}
    for text in texts[len(own) :]:
        if text.is_whole and text.text in places:
            yield places[text.text].finding("leak", f"is also in {text.row.place}: {_excerpt(text.row)}")
    seen: set[tuple[str, str]] = set()
    for like in sorted(Shingled([t.text for t in texts]).alike(NEAR, len(own)), key=lambda like: -like.jaccard):
        one, other, leak = texts[like.first], texts[like.second], like.second >= len(own)
        wholes = one.is_whole and other.is_whole
        pair = (one.row.place, other.row.place)
        if one.row is other.row or pair in seen or (wholes and one.text == other.text):
            continue
        if (leak or wholes) and _is_too_near(like, one.text, other.text):
            seen.add(pair)
            yield _likeness_finding(like, one.row, other.row, leak)


def _long_turns(rows: Iterable[AuthoredRow]) -> Iterator[_Text]:
    for row in rows:
        if row.is_conversation:
            yield from (_Text(row, text, False) for text in map(_key, row.turns) if len(text) >= LEAST_TURN)


def _is_too_near(like: Likeness, text: str, other: str) -> bool:
    if like.jaccard >= NEAR:
        return True
    return like.contained >= CONTAINED and min(len(text), len(other)) >= LEAST_CONTAINED


def _likeness_finding(like: Likeness, row: AuthoredRow, other: AuthoredRow, leak: bool) -> Finding:
    figures = f"{like.jaccard:.2f} alike, {like.contained:.2f} contained"
    if leak:
        return row.finding("leak", f"{figures} in {other.place}: {_excerpt(row)} and {_excerpt(other)}")
    return other.finding("near-duplicate", f"{figures} in {row.place}: {_excerpt(other)} and {_excerpt(row)}")


def _templates(rows: Iterable[AuthoredRow]) -> Iterator[Finding]:
    """Prompts that begin alike or are the same but for numbers and names, where there are many of them."""
    skeletons: dict[str, list[AuthoredRow]] = {}
    openings: dict[str, list[AuthoredRow]] = {}
    for row in rows:
        if not row.is_conversation:
            skeleton = skeleton_of(row.whole)
            if len(skeleton) >= LEAST_SKELETON:
                skeletons.setdefault(skeleton, []).append(row)
            if len(skeleton) > OPENING:
                openings.setdefault(skeleton[:OPENING], []).append(row)
    for what, found, most in (("are the same", skeletons, MOST_SKELETONS), ("begin alike", openings, MOST_OPENINGS)):
        for same in found.values():
            if len(same) > most:
                others = ", ".join(row.place for row in same[1:5])
                yield same[0].finding(
                    "template", f"{len(same)} rows {what} but for numbers and names: {_excerpt(same[0])}, {others}"
                )


def skeleton_of(text: str) -> str:
    """The normalised text with every number, and every capitalised word within a sentence, made one."""
    return normalised(_NUMBER.sub("0", _NAME.sub("Name", text)))


def _glossary(file: str, text: str) -> Iterator[Finding]:
    """What is wrong with a glossary file: malformed lines, words that stand twice with one gloss or with two."""
    first: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        parts = line.split("\t")
        word, gloss = parts if len(parts) == 2 else ("", "")
        if not (word and gloss) or line != line.strip() or word != word.strip() or gloss != " ".join(gloss.split()):
            yield Finding(file, number, "glossary", f"not a word, a tab and its gloss: {line!r}")
            continue
        if not gloss.isascii() or gloss != gloss.lower() or len(gloss.split()) > MOST_GLOSS_WORDS:
            yield Finding(
                file,
                number,
                "glossary",
                f"the gloss {gloss!r} is not 1 to {MOST_GLOSS_WORDS} English words in small letters",
            )
        before, meant = first.setdefault(unicodedata.normalize("NFC", word.lower()), (number, gloss))
        if before != number:
            again = "again" if meant == gloss else f"as {meant!r} and here as {gloss!r}"
            yield Finding(file, number, "glossary", f"{word!r} stands in line {before} {again}")
