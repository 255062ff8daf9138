"""Excerpt: the line of a file that a finding is about, and where under it a mark belongs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from gateway.checking.masking import MASK, masked, shown_column

WIDTH = 100  # characters of a long line that are shown, those around the spot
_BEFORE = 0.4  # the part of them that stands before it
# A quoted text, a reference, what is masked, a plain text up to what ends it, or one character.
_WORD = re.compile(
    rf"\"[^\"]*\"|'[^']*'|\$\{{[^}}]*\}}|{MASK}|[^\s,\[\]{{}}#:](?:[^\s,\[\]{{}}:]|:(?=[^\s,\]}}])|[^\S\n]+(?=[^\s#,\]}}]))*|\S"
)


@dataclass(frozen=True)
class Excerpt:
    """`text` is fit for a terminal; the mark under it begins after `indent` cells and is `length` long."""

    text: str
    indent: int
    length: int


def excerpt(lines: Sequence[str], line: int, column: int, width: int = WIDTH) -> Excerpt | None:
    """Around a place counted from 1; None where the text has no such line, or nothing stands on it."""
    if not 1 <= line <= len(lines) or not lines[line - 1].strip():
        return None
    text, spans = masked(lines, line)
    at = min(shown_column(max(0, column - 1), spans), len(text))
    text = "".join(c if c.isprintable() else " " if c == "\t" else "�" for c in text)
    word = _WORD.match(text, at)
    start = max(0, at - int(width * _BEFORE)) if len(text) > width else 0
    before, after = "…" if start else "", "…" if start + width < len(text) else ""
    shown = before + text[start : start + width].rstrip()
    indent = cell_len(before + text[start:at])
    length = min(cell_len(word[0]) if word else 1, max(1, cell_len(shown) - indent))
    return Excerpt(shown + after, indent, length)
