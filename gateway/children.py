"""Children: the series of metric families, found without what the families themselves do to find one."""

from __future__ import annotations

from typing import Any, TypeVar

from prometheus_client import Counter, Gauge, Histogram

F = TypeVar("F", Counter, Gauge, Histogram)


class Children:
    """The child of a family: looked up here, since the family itself would take a lock and make the labels anew."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, tuple[str, ...]], Any] = {}

    def __call__(self, family: F, *labels: str) -> F:
        key = (family, labels)
        child = self._known.get(key)
        if child is None:
            child = self._known[key] = family.labels(*labels)
        return child
