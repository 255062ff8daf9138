"""Code-switching: English prompts with some words in another language, so that the words of the glossary are learned in context.

(Qin et al. 2020, "CoSDA-ML: Multi-Lingual Code-Switching Data Augmentation for Zero-Shot Cross-Lingual NLP".)
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from router.training.glossary import GLOSSARY, glosses_of

SHARE = 0.6  # of the words that have a translation
_WORD = re.compile(r"[A-Za-z]+")

Translations = Mapping[str, Sequence[str]]


class Switcher:
    """Puts words of one language at a time into an English text; `languages` gives each one's words by English gloss."""

    def __init__(self, languages: Mapping[str, Translations]) -> None:
        self._names = sorted(name for name, words in languages.items() if words)
        self._languages = [languages[name] for name in self._names]
        self._sizes = [len(words) for words in self._languages]

    @staticmethod
    def load(folder: Path = GLOSSARY) -> Switcher:
        """With the words of the glossary. Raises CorpusError naming file and line."""
        return Switcher({path.stem: glosses_of(path) for path in sorted(folder.glob("*.tsv"))})

    def switched(self, text: str, chance: random.Random) -> str:
        """`text` with SHARE of its known words in a language drawn by the size of its glossary."""
        if not self._names:
            return text
        (words,) = chance.choices(self._languages, self._sizes)
        return "".join(_pieces(text, words, chance))


def _pieces(text: str, words: Translations, chance: random.Random) -> Iterator[str]:
    """The text in pieces, the words among them translated; two words that have one translation go first."""
    found = list(_WORD.finditer(text))
    at = i = 0
    while i < len(found):
        yield text[at : found[i].start()]
        pair = text[found[i].start() : found[i + 1].end()] if i + 1 < len(found) else ""
        taken = 2 if pair.lower() in words else 1
        whole = pair if taken == 2 else found[i][0]
        known = words.get(whole.lower()) or words.get(whole.lower().removesuffix("s"))
        yield chance.choice(known) if known and chance.random() < SHARE else whole
        at, i = found[i + taken - 1].end(), i + taken
    yield text[at:]
