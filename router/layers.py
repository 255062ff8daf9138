"""Layers: several YAML files laid over one another as one, which knows of every value where it was written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from router.errors import Problem
from router.yamlfile import Path, YamlFile, child, problem_at

LONG = 8  # characters: a value that is shorter may be a part of any word


@dataclass(frozen=True)
class Origin:
    """Where a value was written, counted from 1, and as what: `written` is a scalar's text with its references, "" of others."""

    file: str
    line: int
    column: int
    written: str


@dataclass(frozen=True)
class Reference:
    """A text with references to the environment in it, and what it came to."""

    written: str
    value: str


@dataclass(frozen=True)
class _Spot:
    file: YamlFile
    key: Node | None
    node: Node | None


@dataclass(frozen=True)
class Layers:
    """`files` from the lowest to the one on top, which says what counts. `data` is what they are together; `references` has by
    path what was put into it from the environment, which no problem repeats."""

    files: Sequence[YamlFile]
    data: Any
    references: Mapping[tuple[str | int, ...], Reference] = field(default_factory=dict, repr=False)

    @staticmethod
    def of(files: Sequence[YamlFile]) -> Layers:
        data = files[0].data
        for file in files[1:]:
            data = merged(data, file.data)
        return Layers(files, data)

    @property
    def top(self) -> YamlFile:
        return self.files[-1]

    def problem(self, path: Path, message: str, at_key: bool = False) -> Problem:
        """A problem where the value at `path` was written, or its key; at the nearest parent that exists where it does not."""
        spot = self._spots(path)[0][0]
        return problem_at(spot.file.name, spot.key, spot.node, path, self._discreet(path, message), at_key)

    def origin(self, path: Path) -> Origin | None:
        """None where no file says anything: what counts there is a default."""
        spots, steps = self._spots(path)
        spot = spots[0]
        if steps < len(path) or spot.node is None:
            return None
        place = problem_at(spot.file.name, spot.key, spot.node, path, "", at_key=False)
        written = spot.file.text(spot.node) if isinstance(spot.node, ScalarNode) else ""
        return Origin(place.file, place.line, place.column, written)

    def is_plain(self, path: Path) -> bool:
        """Whether the text at `path` stands there without quotes, so that YAML may take it for a number."""
        node = self._spots(path)[0][0].node
        return isinstance(node, ScalarNode) and not node.style

    def duplicates(self) -> list[Problem]:
        """Every key that stands twice in one mapping of a file."""
        return [problem for file in self.files for problem in file.duplicates()]

    def _spots(self, path: Path) -> tuple[list[_Spot], int]:
        """What the files have after as many steps of `path` as lead somewhere, the one on top first, and how many those are."""
        spots = [_Spot(file, None, file.root) for file in reversed(self.files)]
        for taken, step in enumerate(path):
            below = []
            for spot in spots:
                found = child(spot.node, step)
                if found is None:
                    continue
                below.append(_Spot(spot.file, *found))
                if not isinstance(found[1], MappingNode):
                    break  # it hides what is under it
            if not below:
                return spots, taken
            spots = below
        return spots, len(path)

    def _discreet(self, path: Path, message: str) -> str:
        """The message with references in place of what they lead to, which may be secret."""
        for at, reference in self.references.items():
            shorter = min(len(at), len(path))
            if tuple(path[:shorter]) == at[:shorter]:
                written = reference.written
                message = message.replace(repr(reference.value[:40]), repr(written))
                if len(reference.value) >= LONG:
                    message = message.replace(reference.value, written)
        return message


def merged(lower: Any, upper: Any) -> Any:
    """`upper` over `lower`: mappings key by key, null takes away what is under it, and everything else replaces it."""
    if not (isinstance(lower, dict) and isinstance(upper, dict)):
        return upper
    both = dict(lower)
    for key, value in upper.items():
        if value is None and key in both:
            del both[key]
        else:
            both[key] = merged(both[key], value) if key in both else value
    return both
