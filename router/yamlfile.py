"""A YAML file read as plain data and as the place of every key, so that an error can point at it.

Stricter than YAML where that catches mistakes: a key is always the text that stands there (5 and true are names as well),
a date is text, and a file that grows without bound through its aliases is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from router.errors import ConfigError, Problem

Path = Sequence[str | int]
Found = tuple[Node | None, Node]  # a key, where there is one, and its value

MAX_DEPTH = 40
MAX_NODES = 100_000  # with every alias followed
MAX_DIGITS = 400
# YAML cannot read {api_key: ${NAME}}: the brace of a reference would open a mapping. While it parses, two characters of
# the private use area stand for the braces of references, so that people may write them bare and every column stays.
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_OPEN, _CLOSE = "\ue000", "\ue001"
_TAG = "tag:yaml.org,2002:"
_TRUE, _FALSE = ("true", "True", "TRUE"), ("false", "False", "FALSE")


@dataclass(frozen=True)
class YamlFile:
    """`data` is plain Python, its keys text; `root` the tree of nodes with their marks."""

    name: str
    data: Any
    root: Node | None

    @staticmethod
    def parse(text: str, name: str) -> YamlFile:
        """Raises ConfigError on text that is not YAML, or is nested or repeated without end."""
        shown = text if _OPEN in text or _CLOSE in text else _REFERENCE.sub(f"${_OPEN}\\1{_CLOSE}", text)
        try:
            root = YAML(typ="rt", pure=True).compose(shown)
            return YamlFile(name, _Builder(name, restore=shown != text).build(root), root)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            raise ConfigError([Problem(name, line, column, "", f"not valid YAML: {error.problem}")]) from None
        except RecursionError:
            raise ConfigError([Problem(name, 1, 1, "", "not valid YAML: nested too deeply")]) from None
        except (YAMLError, ValueError) as error:
            first = str(error).partition("\n")[0]
            raise ConfigError([Problem(name, 1, 1, "", f"not valid YAML: {first}")]) from None

    def problem(self, path: Path, message: str, at_key: bool = False) -> Problem:
        """A problem at the value at `path`, or at its key; at the nearest parent that exists where it does not."""
        key, node = None, self.root
        for step in path:
            found = _child(node, step)
            if found is None:
                break
            key, node = found
        spot = key if key is not None and (at_key or not _is_written_scalar(node)) else node
        return _problem(self.name, spot, ".".join(str(step) for step in path), message)

    def node(self, path: Path) -> Node | None:
        """The node at `path`, with the marks of where it stands; None where there is none."""
        node = self.root
        for step in path:
            found = _child(node, step)
            if found is None:
                return None
            node = found[1]
        return node

    def duplicates(self) -> list[Problem]:
        """Every key that stands twice in one mapping."""
        return list(_duplicates(self.name, self.root, (), set()))


class _Builder:
    """Plain data from nodes; counts what it builds."""

    def __init__(self, name: str, restore: bool) -> None:
        self._name, self._restore, self._built = name, restore, 0

    def build(self, node: Node | None, depth: int = 0) -> Any:
        if node is None:
            return None
        self._built += 1
        if self._built > MAX_NODES or depth > MAX_DEPTH:
            raise self._refuse(
                node, "nested too deeply, or inside itself" if depth > MAX_DEPTH else "repeats too much through aliases"
            )
        if not isinstance(node, ScalarNode) and str(node.tag).removeprefix(_TAG) not in ("map", "seq"):
            raise self._refuse(node, f"cannot be read as {node.tag}")
        if isinstance(node, MappingNode):
            return self._mapping(node, depth)
        if isinstance(node, SequenceNode):
            return [self.build(item, depth + 1) for item in node.value]
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        raise self._refuse(node, "cannot be read")

    def _refuse(self, node: Node, why: str) -> ConfigError:
        return ConfigError([_problem(self._name, node, "", f"not valid YAML: {why}")])

    def _mapping(self, node: MappingNode, depth: int) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                raise self._refuse(key, "a key has to be text")
            if key.value == "<<" and not key.style:  # in quotes it is a key like any other
                parts = value.value if isinstance(value, SequenceNode) else [value]
                for part in parts:
                    merged = self._merge_source(part, depth) | merged
            else:
                own[self._text(key)] = self.build(value, depth + 1)
        return merged | own

    def _merge_source(self, node: Node, depth: int) -> dict[str, Any]:
        source = self.build(node, depth + 1)
        if not isinstance(source, dict):
            raise self._refuse(node, "only a mapping can be merged")
        return source

    def _scalar(self, node: ScalarNode) -> Any:
        kind, text = str(node.tag or "").removeprefix(_TAG), str(node.value)
        if kind == "null":
            return None
        if kind == "bool" and text in _TRUE + _FALSE:
            return text in _TRUE
        if kind in ("int", "float") and len(text) <= MAX_DIGITS:
            try:
                return _integer(text) if kind == "int" else _float(text)
            except ValueError:
                pass
        if kind in ("str", "timestamp"):
            return self._text(node)
        raise self._refuse(node, f"cannot be read as {kind or 'a value'}")

    def _text(self, node: ScalarNode) -> str:
        text = str(node.value)
        return text.replace(_OPEN, "{").replace(_CLOSE, "}") if self._restore else text


def _integer(text: str) -> int:
    plain = text.replace("_", "")
    return int(plain, 0) if re.match(r"[-+]?0[xob]", plain) else int(plain)


def _float(text: str) -> float:
    return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))


def _is_written_scalar(node: Node | None) -> bool:
    """Whether there is a value to point at: not a section, and not the nothing behind a key that was left empty."""
    return isinstance(node, ScalarNode) and node.start_mark.index != node.end_mark.index


def _problem(name: str, node: Node | None, key: str, message: str) -> Problem:
    mark = node.start_mark if node is not None else None
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
    return Problem(name, line, column, key, message)


def _child(node: Node | None, step: str | int) -> Found | None:
    if isinstance(node, MappingNode):
        for key, value in node.value:
            if str(key.value) == str(step):
                return key, value
    if isinstance(node, SequenceNode) and isinstance(step, int) and step < len(node.value):
        return None, node.value[step]
    return None


def _duplicates(name: str, node: Node | None, path: tuple[str, ...], seen: set[int]) -> Iterator[Problem]:
    if node is None or id(node) in seen:  # an alias stands for what was looked at already
        return
    seen.add(id(node))
    if isinstance(node, MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            word = str(key.value)
            if word in first:
                message = f"stands twice; the first is on line {first[word]}"
                yield _problem(name, key, ".".join((*path, word)), message)
            else:
                first[word] = key.start_mark.line + 1
            yield from _duplicates(name, value, (*path, word), seen)
    elif isinstance(node, SequenceNode):
        for i, item in enumerate(node.value):
            yield from _duplicates(name, item, (*path, str(i)), seen)
