"""Prices: what keeps costs and savings from being counted."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.checking.rule import Warned
from gateway.costs import cost_warnings
from router.experts import ExpertsFile


def prices(file: ExpertsFile) -> Iterator[Warned]:
    for code, path, words in cost_warnings(file):
        yield Warned(code, path, words, at_key=code == "unpriced")
