"""Rule: a question to an experts.yaml that is valid, whose answers are what will bite whoever serves it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from router.experts import ExpertsFile


class Warned(NamedTuple):
    """`code` names the rule, `path` the keys of the file that lead to the spot: the value there, or its key with `at_key`."""

    code: str
    path: tuple[str | int, ...]
    words: str
    at_key: bool = False


Rule = Callable[[ExpertsFile], Iterator[Warned]]
