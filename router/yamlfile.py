"""A YAML file read as plain data and as the place of every key, so that an error can point at it.

Stricter than YAML where that catches mistakes: a key is always the text that stands there (5 and true are names as well),
a date is text, and a file that grows without bound, through its aliases or by its depth, is refused in a bounded time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.scanner import RoundTripScanner, ScannerError

from router.errors import ConfigError, Problem
from router.references import NAME
from router.scalars import TAG, value_of

Path = Sequence[str | int]
Found = tuple[Node | None, Node]  # a key, where there is one, and its value

MAX_DEPTH = 40
MAX_NODES = 100_000  # with every alias followed
MAX_TOKENS = 40_000  # of YAML, with every comment: some seconds at the worst
# YAML cannot read {api_key: ${NAME}}: the brace of a reference would open a mapping. While it parses, characters of the
# private use area stand for those of references that mean something to YAML, so that people may write references bare and
# every column stays. A default with quotes in it is left as it is: there YAML's own rules have to tell where it ends.
# That none has a brace in it keeps the search linear.
_REFERENCE = re.compile(rf"\$\{{{NAME}(?::-[^{{}}\"'\\\r\n]*)?\}}")
_MEANT = "{}[],:#"
_HIDDEN = "".join(chr(0xE000 + i) for i in range(len(_MEANT)))
_HIDE, _SHOW = str.maketrans(_MEANT, _HIDDEN), str.maketrans(_HIDDEN, _MEANT)
_KINDS = ("null", "bool", "int", "float", "binary")
_TAGGED = "a tag stands here, which nothing in this file may have; a text that begins with ! is written in quotes"


@dataclass(frozen=True)
class YamlFile:
    """`data` is plain Python, its keys text; `root` the tree of nodes with their marks. With `hides` the nodes' texts have other
    characters than the file in their references: `text` has the true ones."""

    name: str
    data: Any
    root: Node | None
    hides: bool = False

    @staticmethod
    def parse(text: str, name: str) -> YamlFile:
        """Raises ConfigError on text that is not YAML, or is nested or repeated without end."""
        taken = any(c in text for c in _HIDDEN)
        shown = text if taken else _REFERENCE.sub(lambda match: match[0].translate(_HIDE), text)
        yaml = YAML(typ="rt", pure=True)
        yaml.Scanner = _Scanner
        try:
            root = yaml.compose(shown)
            return YamlFile(name, _Builder(name, shown != text).build(root), root, shown != text)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            raise ConfigError([Problem(name, line, column, "", f"not valid YAML: {_in_words(error)}")]) from None
        except RecursionError:
            raise ConfigError([Problem(name, 1, 1, "", "not valid YAML: nested too deeply")]) from None
        except (YAMLError, ValueError) as error:
            first = str(error).partition("\n")[0]
            raise ConfigError([Problem(name, 1, 1, "", f"not valid YAML: {first}")]) from None

    def problem(self, path: Path, message: str, at_key: bool = False) -> Problem:
        """A problem at the value at `path`, or at its key; at the nearest parent that exists where it does not."""
        key, node = None, self.root
        for step in path:
            found = child(node, step)
            if found is None:
                break
            key, node = found
        return problem_at(self.name, key, node, path, message, at_key)

    def node(self, path: Path) -> Node | None:
        """The node at `path`, with the marks of where it stands; None where there is none."""
        node = self.root
        for step in path:
            found = child(node, step)
            if found is None:
                return None
            node = found[1]
        return node

    def text(self, node: ScalarNode) -> str:
        """What the file says there, without quotes."""
        return _shown(str(node.value), self.hides)

    def duplicates(self) -> list[Problem]:
        """Every key that stands twice in one mapping."""
        return list(_duplicates(self.name, self.root, (), set()))


class _Builder:
    """Plain data from nodes; counts what it builds."""

    def __init__(self, name: str, hides: bool) -> None:
        self._name, self._hides, self._built = name, hides, 0

    def build(self, node: Node | None, depth: int = 0) -> Any:
        if node is None:
            return None
        self._built += 1
        if self._built > MAX_NODES or depth > MAX_DEPTH:
            raise self._refuse(
                node, "nested too deeply, or inside itself" if depth > MAX_DEPTH else "repeats too much through aliases"
            )
        if not isinstance(node, ScalarNode) and str(node.tag).removeprefix(TAG) not in ("map", "seq"):
            raise self._refuse(node, _TAGGED)
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
            if _merges(key):
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
        kind = str(node.tag or "").removeprefix(TAG)
        try:
            return value_of(kind, self._text(node))
        except ValueError:
            known = f"cannot be read as {kind}"
            raise self._refuse(node, known if kind in _KINDS else _TAGGED) from None

    def _text(self, node: ScalarNode) -> str:
        return _shown(str(node.value), self._hides)


class _Scanner(RoundTripScanner):
    """Ends early what would take it time that grows with the square of the text."""

    seen = 0

    def fetch_more_tokens(self) -> Any:
        self.seen += 1
        deep = len(self.flow_context) > MAX_DEPTH
        if deep or self.seen > MAX_TOKENS:
            what = "nested too deeply" if deep else f"more than {MAX_TOKENS:,} words and signs"
            raise ScannerError(None, None, what, self.reader.get_mark())
        return super().fetch_more_tokens()


def _shown(text: str, hides: bool) -> str:
    return text.translate(_SHOW) if hides else text


def _in_words(error: MarkedYAMLError) -> str:
    """The most usual ones in plain words, others as YAML says them: none repeats what may be a secret that stands there bare."""
    problem = str(error.problem).translate(_SHOW)
    if problem.startswith("found undefined alias"):
        return "an alias stands here, and no anchor has its name; a text that begins with * is written in quotes"
    if "'\\t'" in problem:
        return "a tab stands here; indent with spaces"
    if problem == "but found another document":
        return "another document begins here; a file is one document, so take the line --- out"
    return problem


def _is_written_scalar(node: Node | None) -> bool:
    """Whether there is a value to point at: not a section, and not the nothing behind a key that was left empty."""
    return isinstance(node, ScalarNode) and node.start_mark.index != node.end_mark.index


def problem_at(name: str, key: Node | None, node: Node | None, path: Path, message: str, at_key: bool) -> Problem:
    """A problem of what is at `path`: at its value `node`, or at its `key` where it has no value to point at."""
    spot = key if key is not None and (at_key or not _is_written_scalar(node)) else node
    return _problem(name, spot, ".".join(str(step) for step in path), message)


def _problem(name: str, node: Node | None, key: str, message: str) -> Problem:
    mark = node.start_mark if node is not None else None
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
    return Problem(name, line, column, key, message)


def child(node: Node | None, step: str | int) -> Found | None:
    """What is at one step below `node`; of a mapping what it has of its own before what is merged into it with <<."""
    if isinstance(node, MappingNode):
        for key, value in node.value:
            if str(key.value) == str(step):
                return key, value
        for key, value in node.value:
            if _merges(key):
                for part in value.value if isinstance(value, SequenceNode) else [value]:
                    found = child(part, step)
                    if found is not None:
                        return found
    if isinstance(node, SequenceNode) and isinstance(step, int) and step < len(node.value):
        return None, node.value[step]
    return None


def _merges(key: Node) -> bool:
    """Whether it is <<; in quotes it is a key like any other."""
    return isinstance(key, ScalarNode) and key.value == "<<" and not key.style


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
