"""Which texts say nearly the same, told by the character shingles that they share.

A shingle is a run of 5 characters of the normalised text (Broder, "On the resemblance and containment of documents", 1997),
of 3 in scripts of which one character says as much as several Latin letters. Two texts are as alike as the Jaccard index of
their sets of shingles.

Every pair at or above a threshold is found, none by chance. A text that shares at least m of its n shingles with another
shares at least k of its n - m + k rarest ones with it (Chaudhuri, Ganti and Kaushik, "A primitive operator for similarity
joins in data cleaning", 2006), so those are looked up, and only the texts that hold enough of them are compared in full.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WIDTH = 5
DENSE_WIDTH = 3
LEAST_SHINGLES = 16  # of each text; fewer tell only whether two texts are the same
ROUGHLY = 6  # rare shingles that two texts share before they are compared in full
_DENSE = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")  # kana, Chinese characters, Hangul
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio: mixes the bits of a hash well


class _Kept(dict[int, str]):
    """For str.translate: letters, marks, digits and symbols stay, anything else becomes a space."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        self[code] = character if unicodedata.category(character)[0] in "LMNS" else " "
        return self[code]


_KEPT = _Kept()


def normalised(text: str) -> str:
    """The text without what does not tell two texts apart: form (NFKC), case, punctuation and white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().translate(_KEPT).split())


@dataclass(frozen=True, order=True)
class Likeness:
    """How alike two texts are, given by their numbers: the Jaccard index, and the share of the shorter's shingles shared."""

    first: int
    second: int
    jaccard: float
    contained: float


class Shingled:
    """Normalised texts as sets of shingles, which are numbered from the rarest on.

    `_shingles[_starts[t]:_starts[t + 1]]` are those of text t, ascending; `_holders[_heads[s]:_heads[s + 1]]` the texts that
    hold shingle s. Takes some 10 bytes a character, 100 while it is made.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        count = len(texts)
        hashes, owners = _hashed(texts)
        known, numbers = np.unique(hashes, return_inverse=True)
        held = np.sort(numbers.astype(np.int64) * max(1, count) + owners)
        held = held[np.diff(held, prepend=-1) > 0]  # each shingle of a text once
        numbers, owners = held // max(1, count), held % max(1, count)
        holders = np.bincount(numbers, minlength=len(known))
        rank = np.empty(len(known), np.int64)
        rank[np.argsort(holders, kind="stable")] = np.arange(len(known))
        numbers = rank[numbers]
        by_text, by_shingle = np.lexsort((numbers, owners)), np.argsort(numbers, kind="stable")
        self._shingles = numbers[by_text].astype(np.int32)
        self._holders = owners[by_shingle].astype(np.int32)
        self._sizes = np.bincount(owners, minlength=count)
        self._starts = _offsets(self._sizes)
        self._heads = _offsets(np.bincount(numbers, minlength=len(known)))
        self._place = np.argsort(np.lexsort((np.arange(count), self._sizes)))  # of a text, from the smallest on
        self._marked = np.zeros(len(known), bool)

    def alike(self, least: float, own: int | None = None) -> Iterator[Likeness]:
        """Every pair of texts of which the smaller shares at least `least` of its shingles, 0 < least <= 1.

        Of pairs among the texts from number `own` on there are none. Texts of fewer than LEAST_SHINGLES are left out.
        """
        own = len(self._sizes) if own is None else own
        for text in np.flatnonzero(self._sizes >= LEAST_SHINGLES).tolist():
            others = self._candidates(text, least)
            yield from self._compared(text, others[others < own] if text >= own else others, least)

    def _candidates(self, text: int, least: float) -> NDArray[np.int32]:
        """The texts, larger than `text`, that hold enough of its rarest shingles to be worth comparing."""
        mine = self._shingles[self._starts[text] : self._starts[text + 1]]
        needed = math.ceil(least * len(mine) - 1e-9)
        enough = min(ROUGHLY, needed)
        rarest = mine[: len(mine) - needed + enough]
        heads, tails = self._heads[rarest], self._heads[rarest + 1]
        lengths = tails - heads
        holders = self._holders[np.repeat(heads - _offsets(lengths)[:-1], lengths) + np.arange(lengths.sum())]
        others, shared = np.unique(holders[self._place[holders] > self._place[text]], return_counts=True)
        return others[shared >= enough]

    def _compared(self, text: int, others: NDArray[np.int32], least: float) -> Iterator[Likeness]:
        mine = self._shingles[self._starts[text] : self._starts[text + 1]]
        self._marked[mine] = True
        shared = {
            o: int(self._marked[self._shingles[self._starts[o] : self._starts[o + 1]]].sum()) for o in others.tolist()
        }
        self._marked[mine] = False
        for other, both in shared.items():
            if both >= least * len(mine) - 1e-9:
                together = len(mine) + int(self._sizes[other]) - both
                yield Likeness(min(text, other), max(text, other), both / together, both / len(mine))


def _offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _hashed(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The hash of every shingle of every text, and the number of the text; a shingle may come twice."""
    dense = np.array([2 * len(_DENSE.findall(text)) > len(text) for text in texts], bool)
    parts = [
        _of_width(texts, np.flatnonzero(dense == is_dense), width)
        for width, is_dense in ((WIDTH, False), (DENSE_WIDTH, True))
    ]
    return np.concatenate([hashes for hashes, _ in parts]), np.concatenate([owners for _, owners in parts])


def _of_width(
    texts: Sequence[str], chosen: NDArray[np.int64], width: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The shingles of the `chosen` texts; a space on each side marks where words, and so texts, begin and end."""
    padded = [f" {texts[i]} " for i in chosen.tolist()]
    joined = "".join(padded) + " " * width
    characters = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    lengths = np.array([len(text) for text in padded], np.int64)
    hashes = np.full(int(lengths.sum()), width, np.uint64)
    for shift in range(width):
        hashes = hashes * _FACTOR + characters[shift : shift + len(hashes)]
    owners = np.repeat(np.arange(len(padded)), lengths)
    whole = np.arange(len(hashes)) + width <= _offsets(lengths)[owners + 1]
    return hashes[whole], chosen[owners[whole]]
