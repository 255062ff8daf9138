"""What careless writing does to a prompt. Trained with, so that it does not matter; measured with, to show that it does not."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SLIPS = 0.12  # the share of longer words that a hasty writer gets wrong
PUNCTUATION = re.compile(r"[.,;:!?'\"“”‘’…]")

Perturb = Callable[[str, random.Random], str]


def typos(text: str, chance: random.Random) -> str:
    """Letters swapped, dropped, doubled or hit beside, in about one longer word of eight and at least in one."""
    words = text.split(" ")
    long = [i for i, word in enumerate(words) if len(word) >= 4]
    hit = [i for i in long if chance.random() < SLIPS] or ([chance.choice(long)] if long else [])
    for i in hit:
        words[i] = _slip(words[i], chance)
    return " ".join(words)


def _slip(word: str, chance: random.Random) -> str:
    at = chance.randrange(len(word) - 1)
    before, here, after = word[:at], word[at], word[at + 1 :]
    match chance.randrange(4):
        case 0:
            return f"{before}{after[0]}{here}{after[1:]}"
        case 1:
            return before + after
        case 2:
            return f"{before}{here}{here}{after}"
        case _:
            return f"{before}{chance.choice(LETTERS)}{after}"


def lower(text: str, chance: random.Random) -> str:
    """All lower case."""
    return text.lower()


def capitals(text: str, chance: random.Random) -> str:
    """ALL CAPITALS."""
    return text.upper()


def no_punctuation(text: str, chance: random.Random) -> str:
    """Without full stops, commas, quotes and the like; what mathematics and code need stays."""
    return " ".join(PUNCTUATION.sub("", text).split(" "))


def careless(text: str, chance: random.Random) -> str:
    """Lower case and no punctuation at once."""
    return no_punctuation(text.lower(), chance)


PERTURBATIONS: dict[str, Perturb] = {
    "typos": typos,
    "lower": lower,
    "capitals": capitals,
    "no_punctuation": no_punctuation,
    "careless": careless,
}


def perturbed(text: str, name: str) -> str:
    """A copy of `text` by the perturbation `name`, the same whenever it is made: the text alone settles where it slips."""
    return PERTURBATIONS[name](text, random.Random(f"{name}:{text}"))  # noqa: S311
