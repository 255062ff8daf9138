"""What a PromQL expression asks for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import promql_parser


def selectors(node: Any) -> Iterator[Any]:
    """Every selector of a series in an expression."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    inner = [getattr(node, name, None) for name in ("lhs", "rhs", "expr", "vector_selector", "param", "args")]
    for child in inner:
        for one in child if isinstance(child, list) else [child]:
            if one is not None and not isinstance(one, str):
                yield from selectors(one)


def grouped(expression: str) -> set[str]:
    """The labels that it groups or matches by."""
    lists: list[str] = re.findall(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)", expression)
    return {label.strip() for names in lists for label in names.split(",")} - {""}
