"""Which words of a text speak for a domain, and which against: leave one out and see what becomes of the probability.

The effect of a piece of a text is how far the log-odds ln(p / (1 - p)) of the domain fall when it is left out: above 0 it
speaks for the domain, below 0 against it. The method is called occlusion (Li, Monroe and Jurafsky 2016, "Understanding
Neural Networks through Representation Erasure"). What is said twice has little effect: each time it is still there once.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

MOST_PIECES = 60
FEW_PIECES = 16  # for a stage that takes milliseconds to read a text
LONGEST = 40  # characters of a piece that nothing divides, such as a path or a hash
# Characters that make about a word, in scripts that put no spaces between words.
IDEOGRAPHS = 2
SYLLABLES = 4
LEAST_PROBABILITY = 1e-6  # what is less, or nearer to 1, counts as this

_WORD = re.compile(r"\s+\S*\s*|\S+\s*")
_IDEOGRAPH = re.compile("[\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]")
# Thai, Lao, Tibetan, Burmese, Khmer.
_SYLLABLE = re.compile("[\u0e00-\u109f\u1780-\u17ff\ua9e0-\ua9ff\uaa60-\uaa7f]")

Probabilities = Callable[[Sequence[str]], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a text, with the white space after it, and its effect on the log-odds of a domain."""

    text: str
    effect: float


def occluded(text: str, domain: int, probabilities: Probabilities, most: int = MOST_PIECES) -> list[Piece]:
    """The pieces of `text` in their order, at most so many, and their effects; joined, they are the text.

    `probabilities` gives one row a text, shape (texts, domains), of which the column `domain` counts. It is called once,
    with one text more than there are pieces.
    """
    pieces = pieces_of(text, most)
    without = ["".join((*pieces[:i], *pieces[i + 1 :])) for i in range(len(pieces))]
    whole, *rest = map(_log_odds, probabilities([text, *without])[:, domain].tolist())
    return [Piece(piece, whole - left) for piece, left in zip(pieces, rest, strict=True)]


def pieces_of(text: str, most: int = MOST_PIECES) -> list[str]:
    """`text` cut into words, or into a few characters where the script has no spaces; neighbours are put together until
    there are at most `most`."""
    words = [piece for word in _WORD.findall(text) for piece in _cut(word)]
    if len(words) <= most:
        return words
    bounds = [i * len(words) // most for i in range(most + 1)]
    return ["".join(words[a:b]) for a, b in pairwise(bounds)]


def _cut(word: str) -> Iterator[str]:
    """Never before white space or a mark that belongs to the letter before it."""
    begun, count, kind = 0, 0, 0
    for i, character in enumerate(word):
        category = unicodedata.category(character)
        if character.isspace() or category[0] == "M" or category == "Cf":
            continue
        most = _most(character)
        if count and (most != kind or count >= most):
            yield word[begun:i]
            begun, count = i, 0
        kind, count = most, count + 1
    yield word[begun:]


def _most(character: str) -> int:
    """How many characters like this one a piece may have."""
    if _IDEOGRAPH.match(character):
        return IDEOGRAPHS
    return SYLLABLES if _SYLLABLE.match(character) else LONGEST


def _log_odds(probability: float) -> float:
    p = min(max(probability, LEAST_PROBABILITY), 1 - LEAST_PROBABILITY)
    return math.log(p / (1 - p))
