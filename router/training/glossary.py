"""The glossary: words of other languages with an English gloss, so that an encoder that was taught English can read them.

`glossary/` has one file a language, a word and its gloss a line. Each word becomes a token of the encoder's tokenizer whose
vector starts as the mean of its gloss's: the rest is learned from the corpus.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router.encoder import UNKNOWN
from router.errors import CorpusError

GLOSSARY = Path(__file__).parents[1] / "glossary"
# Scripts written without spaces, or with endings and articles joined on: their entries are looked for inside of words too.
_JOINED = {
    "zh": 1,
    "ja": 1,
    "th": 2,
    "my": 2,
    "ko": 2,
    "ar": 3,
    "he": 3,
    "fa": 3,
    "hi": 2,
    "bn": 2,
    "ru": 4,
    "uk": 4,
    "el": 4,
}


@dataclass(frozen=True)
class Entry:
    """A word and what it means in English; `whole` where it counts only between spaces."""

    word: str
    glosses: tuple[str, ...]
    whole: bool


def load_glossary(folder: Path = GLOSSARY) -> list[Entry]:
    """The entries of every language; a word of several languages is one entry. Raises CorpusError naming file and line."""
    found: dict[str, tuple[list[str], bool]] = {}
    for path in sorted(folder.glob("*.tsv")):
        for word, gloss in _lines(path):
            glosses, _ = found.setdefault(word, ([], path.stem not in _JOINED or len(word) < _JOINED[path.stem]))
            if gloss not in glosses:
                glosses.append(gloss)
    return [Entry(word, tuple(glosses), whole) for word, (glosses, whole) in found.items()]


def glosses_of(path: Path) -> dict[str, list[str]]:
    """The words of one language by their English gloss. Raises CorpusError naming file and line."""
    found: dict[str, list[str]] = {}
    for word, gloss in _lines(path):
        found.setdefault(gloss, []).append(word)
    return found


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        word, _, gloss = (part.strip() for part in line.partition("\t"))
        if not (word and gloss and gloss.isascii()):
            raise CorpusError(f"{path.name}:{number}: expected a word, a tab and its English gloss")
        yield unicodedata.normalize("NFC", word.lower()), gloss.lower()


def additions(entries: Iterable[Entry], tokenizer: Any) -> list[Entry]:
    """Those entries that `tokenizer` (of the tokenizers package) has no token of its own for.

    A word that is spelled like an English one would take that one's place, so it is left out. Words that the tokenizer
    cannot tell apart, such as `casa` and `casă` where it drops accents, become one entry: of two tokens for the same
    letters it takes now this one and now that one, as each loading of its file happens to come out.
    """
    found: dict[str, Entry] = {}
    for entry in entries:
        if entry.whole and _is_known(entry.word, tokenizer):
            continue
        key = normal(entry.word, tokenizer)
        same = found.get(key, Entry(entry.word, (), True))
        glosses = tuple(dict.fromkeys((*same.glosses, *entry.glosses)))
        found[key] = Entry(same.word, glosses, same.whole and entry.whole)
    return list(found.values())


def normal(text: str, tokenizer: Any) -> str:
    """`text` as `tokenizer` reads it: in lower case and without accents, say."""
    return str(tokenizer.normalizer.normalize_str(text)) if tokenizer.normalizer else text


def _is_known(word: str, tokenizer: Any) -> bool:
    ids = tokenizer.encode(word, add_special_tokens=False).ids
    return len(ids) == 1 and ids[0] != tokenizer.token_to_id(UNKNOWN)
