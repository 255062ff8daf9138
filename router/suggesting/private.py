"""What of a prompt is not to be put into a file: what looks like a secret, or points to a person."""

from __future__ import annotations

import math
import re
from collections import Counter

_PATTERNS = (
    r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",  # e-mail addresses
    r"\d(?:[ .()/-]{0,2}\d){6,}",  # numbers of telephones, cards, accounts, persons
    r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,}",  # IBANs
    r"\b\d{1,3}(?:\.\d{1,3}){3}\b|\b(?:[0-9a-f]{1,4}:){4,}[0-9a-f]{0,4}",  # addresses of machines
    r"[a-z][a-z0-9+.-]*://\S+|\bwww\.\S+",  # addresses of pages, which often carry keys
    r"(?i:\b(?:password|passwd|pwd|passphrase|secret|token|api[_ -]?key|access[_ -]?key|bearer)\b[\"']?\s*(?:is|[:=])?\s*\S*\d)",
    r"(?i:\b(?:sk|pk|rk|ghp|gho|xox[a-z]|hf|glpat|npm|akia|asia)[-_][\w-]{8,})|\bAKIA[0-9A-Z]{12,}",  # keys by their beginning
    r"-----BEGIN|\beyJ[\w-]{10,}",  # keys in PEM, tokens in JWT
)
_PRIVATE = re.compile("|".join(_PATTERNS))
_WORD = re.compile(r"[A-Za-z0-9+/_=-]{16,}")
RANDOM = 3.5  # bits a character, of a word with letters and digits


def is_private(text: str) -> bool:
    """Whether `text` has what looks like a key, a password, an address, or a number of a person's. Names are not found."""
    return _PRIVATE.search(text) is not None or any(_is_random(word) for word in _WORD.findall(text))


def _is_random(word: str) -> bool:
    if not (any(c.isdigit() for c in word) and any(c.isalpha() for c in word)):
        return False
    shares = [count / len(word) for count in Counter(word).values()]
    return -sum(share * math.log2(share) for share in shares) > RANDOM
