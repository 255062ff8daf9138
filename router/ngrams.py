"""Hashed n-grams: the characters, words and neighbouring words of a text as rows of a table (Joulin et al. 2017, "Bag of
Tricks for Efficient Text Classification"). No vocabulary, so that every language and every misspelling has some."""

from __future__ import annotations

import unicodedata
from functools import cache

import numpy as np
from numpy.typing import NDArray

CHARACTERS = 1022  # that are read of a text
GRAMS = (2, 3, 4, 5)  # characters in a row, spaces among them
BASE = 0x9E3779B97F4A7C15  # of the polynomial hash, modulo 2^64; odd, so that it has an inverse
SPREAD = 0xD6E8FEB86659FD93  # brings what the low bits know to the high ones, which name the row
WORDS, NEIGHBOURS = 7, 31  # tell a word from the n-gram that is spelled like it, and (a, b) from (b, a)
SIZE = CHARACTERS + 3

Hashes = NDArray[np.uint64]


def _powers(base: int) -> Hashes:
    return np.array([pow(base, i, 1 << 64) for i in range(SIZE)], dtype=np.uint64)


_POWERS, _INVERSES = _powers(BASE), _powers(pow(BASE, -1, 1 << 64))


@cache
def _letters() -> NDArray[np.bool_]:
    """Of each code point of the basic plane, whether it is part of a word: letters, figures, and the marks of Indic scripts."""
    characters = map(chr, range(0x10000))
    return np.array([c.isalnum() or unicodedata.category(c)[0] == "M" for c in characters])


def ngram_rows(text: str, rows: int) -> NDArray[np.int64]:
    """The row, in a table of so many `rows` (a power of two), of every n-gram of `text`; shape (n-grams,), never empty.

    With H[i] = Σ_{k<i} c[k] · BASE^k, what stands from i to j has the hash (H[j] - H[i]) · BASE^-i, wherever it stands.
    """
    codes = _codes(text[: 4 * CHARACTERS])
    size = len(codes)
    sums = np.zeros(size + 1, dtype=np.uint64)
    np.cumsum(codes * _POWERS[:size], out=sums[1:])
    parts = [(sums[n:] - sums[:-n]) * _INVERSES[: size - n + 1] for n in GRAMS if size >= n]
    inside = _letters().take(codes, mode="clip")
    edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
    starts, ends = edges[::2], edges[1::2]
    words = (sums[ends] - sums[starts]) * _INVERSES[starts]
    parts += [words * np.uint64(WORDS), words[:-1] * np.uint64(NEIGHBOURS) + words[1:]]
    shift = 64 - (rows.bit_length() - 1)
    return ((np.concatenate(parts) * np.uint64(SPREAD)) >> np.uint64(shift)).astype(np.int64)


def _codes(text: str) -> NDArray[np.uint8] | NDArray[np.uint32]:
    """The characters of a text as it is read: in lower case, normalised, with one space between words and at both ends."""
    if text.isascii():
        plain = " ".join(text.lower().split())[:CHARACTERS]
        return np.frombuffer(f" {plain} ".encode("ascii"), dtype=np.uint8)
    plain = " ".join(unicodedata.normalize("NFKC", text).lower().split())[:CHARACTERS]
    return np.frombuffer(f" {plain} ".encode("utf-32-le", "replace"), dtype=np.uint32)
