"""What a cluster of prompts is about: its telling words, and a name for a domain made of them."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

TERMS = 6
LEAST_TEXTS = 3  # that a word has to stand in
LEAST_LIFT = 4.0  # times as often as elsewhere; less is what many words of no meaning have
LONGEST_WORD = 24  # characters; languages that part no words have longer ones
COMMON = 0.5  # the share of nearest rows of the corpus that have to be of a topic, for its name to be the cluster's
LONGEST_NAME = 32
_WORD = re.compile(r"[^\W\d_]{3,}")


def telling(texts: Sequence[str], others: Iterable[str]) -> list[str]:
    """The words that most tell `texts` from `others`: TERMS at most, those that stand often and far more often than elsewhere.

    A word counts once a text, and has to stand in several, so that what one person wrote is none.
    """
    inside, outside = _counted(texts), _counted(others)
    count_in, count_out = max(1, inside.total()), max(1, outside.total())

    def lift(word: str) -> float:
        return inside[word] / count_in / ((outside[word] + 0.5) / count_out)

    found = [word for word, count in inside.items() if count >= LEAST_TEXTS and lift(word) >= LEAST_LIFT]
    return _apart(sorted(found, key=lambda word: (-inside[word] * math.log(lift(word)), word)))[:TERMS]


def named(terms: Sequence[str], topics: Sequence[str], taken: Collection[str]) -> str:
    """A valid name of a domain that nobody has yet: the topic of most of the corpus's nearest rows, else the most telling words."""
    topic, count = Counter(topics).most_common(1)[0] if topics else ("", 0)
    wanted = [topic] if topic and count >= COMMON * len(topics) else []
    wanted += [*terms, "-".join(terms[:2]), "domain"]
    for name in filter(None, map(_valid, wanted)):
        if name not in taken:
            return name
    return next(name for number in range(2, len(taken) + 3) if (name := f"domain-{number}") not in taken)


def _counted(texts: Iterable[str]) -> Counter[str]:
    words: Counter[str] = Counter()
    for text in texts:
        words.update({word for word in _WORD.findall(text.casefold()) if len(word) <= LONGEST_WORD})
    return words


def _apart(words: Sequence[str]) -> list[str]:
    """Less those that only end otherwise than one before."""
    kept: list[str] = []
    for word in words:
        if not any(word[:5] == other[:5] and abs(len(word) - len(other)) <= 3 for other in kept):
            kept.append(word)
    return kept


def _valid(word: str) -> str:
    """As a domain is called: a-z, 0-9 and -; empty where nothing of it is left."""
    plain = unicodedata.normalize("NFKD", word).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:LONGEST_NAME].strip("-")
