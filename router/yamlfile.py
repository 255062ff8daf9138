"""A YAML file read twice: as plain data, and as the place of every key, so that an error can point at it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from router.errors import ConfigError, Problem

Path = Sequence[str | int]

# YAML cannot read {api_key: ${NAME}}: the brace of a reference would open a mapping. While it parses, two characters of
# the private use area stand for the braces of references, so that people may write them bare and every column stays.
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_OPEN, _CLOSE = "\ue000", "\ue001"


@dataclass(frozen=True)
class YamlFile:
    """`data` is plain Python; `root` the tree of nodes with their marks. Raises ConfigError on text that is not YAML."""

    name: str
    data: Any
    root: Node | None

    @staticmethod
    def parse(text: str, name: str) -> YamlFile:
        try:
            text = _REFERENCE.sub(f"${_OPEN}\\1{_CLOSE}", text)
            root = YAML(typ="rt", pure=True).compose(text)
            loader = YAML(typ="safe", pure=True)
            loader.allow_duplicate_keys = True  # found and reported by duplicates(), each with its line
            return YamlFile(name, _with_references(loader.load(text)), root)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            raise ConfigError([Problem(name, line, column, "", f"not valid YAML: {error.problem}")]) from error
        except (YAMLError, ValueError) as error:
            raise ConfigError([Problem(name, 1, 1, "", f"not valid YAML: {error}")]) from error

    def problem(self, path: Path, message: str, at_key: bool = False) -> Problem:
        """A problem at the value at `path`, or at its key; at the nearest parent that exists where it does not."""
        node, key = self.root, None
        for step in path:
            found = _child(node, step)
            if found is None:
                break
            key, node = found
        spot = key if key is not None and (at_key or isinstance(node, (MappingNode, SequenceNode))) else node
        mark = spot.start_mark if spot is not None else None
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        return Problem(self.name, line, column, ".".join(str(step) for step in path), message)

    def duplicates(self) -> list[Problem]:
        """Every key that stands twice in one mapping."""
        return list(_duplicates(self.name, self.root, ()))


def _with_references(value: Any) -> Any:
    """`value` with the braces of its references put back, in keys and values at any depth."""
    if isinstance(value, str):
        return value.replace(f"${_OPEN}", "${").replace(_CLOSE, "}")
    if isinstance(value, dict):
        return {_with_references(key): _with_references(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_references(item) for item in value]
    return value


def _child(node: Node | None, step: str | int) -> tuple[Node | None, Node] | None:
    if isinstance(node, MappingNode):
        for key, value in node.value:
            if str(key.value) == str(step):
                return key, value
    if isinstance(node, SequenceNode) and isinstance(step, int) and step < len(node.value):
        return None, node.value[step]
    return None


def _duplicates(name: str, node: Node | None, path: tuple[str | int, ...]) -> Iterator[Problem]:
    if isinstance(node, MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            word = str(key.value)
            at = (*path, word)
            if word in first:
                mark = key.start_mark
                message = f"stands twice; the first is on line {first[word]}"
                yield Problem(name, mark.line + 1, mark.column + 1, ".".join(map(str, at)), message)
            else:
                first[word] = key.start_mark.line + 1
            yield from _duplicates(name, value, at)
    elif isinstance(node, SequenceNode):
        for i, item in enumerate(node.value):
            yield from _duplicates(name, item, (*path, i))
