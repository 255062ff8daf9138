"""Edits of a YAML file that people keep by hand: an entry is put in or taken out, and every other byte stays as it is."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from router.errors import ConfigError
from router.yamlfile import Path, YamlFile


@dataclass(frozen=True)
class _Section:
    """Where it and its entries begin, by their keys: lines count from 0. `last` is the line of what follows the section."""

    begins: int
    starts: dict[str, int]
    column: int
    last: int
    rows: list[str]

    def end(self, start: int) -> int:
        """The line behind the entry that begins at `start`: behind all that is indented further, comments included."""
        end = start + 1
        later = (line for line in self.starts.values() if line > start)
        for number in range(end, min(later, default=self.last)):
            row = self.rows[number]
            if row.startswith(("---", "...")):
                break
            if row.strip() and (len(row) - len(row.lstrip(" ")) > self.column or not row.lstrip().startswith("#")):
                end = number + 1
        return end

    def apart(self) -> bool:
        """Whether a blank line parts each entry, and the comments above it, from the one before."""
        lines = sorted(self.starts.values())[1:]
        return all(self._blank_above(line) for line in lines)

    def _blank_above(self, line: int) -> bool:
        while line and self.rows[line - 1].lstrip().startswith("#"):
            line -= 1
        return line > 0 and not self.rows[line - 1].strip()


def with_entry(text: str, section: str, lines: Sequence[str], name: str = "") -> str:
    """`text` with one more entry at the end of `section`, a mapping in block style, or in a new section where there is none.

    `lines` are the entry's own, its key at no indentation: they are indented, ended and parted from what stands above as their
    neighbours are. `name` stands in the errors. Raises ConfigError where the section is none that can be added to.
    """
    newline = "\r\n" if "\r\n" in text else "\n"
    if _is_absent(text, section, name):
        rows = text.splitlines(keepends=True)
        end = next((n for n, row in enumerate(rows) if row.startswith("...")), len(rows))
        return _put_in(rows, end, ["", f"{section}:", *("  " + line if line else "" for line in lines)], newline)
    found = _section(text, section, name)
    end = found.end(max(found.starts.values()))
    indent = " " * found.column
    added = [indent + line if line else "" for line in ([""] if found.apart() else []) + [*lines]]
    return _put_in(found.rows, end, added, newline)


def _put_in(rows: Sequence[str], end: int, lines: Sequence[str], newline: str) -> str:
    """`lines` before row `end`; a text that ends with no newline goes on to."""
    added = "".join(line + newline for line in lines)
    if end and not rows[end - 1].endswith(("\n", "\r")):
        added = newline + added.removesuffix(newline)
    return "".join(rows[:end]) + added + "".join(rows[end:])


def without_entry(text: str, section: str, entry: str, name: str = "") -> str:
    """`text` without an entry of `section`, what is indented below it, and the blank line that parted it where all are parted so.

    Raises ConfigError where it is not there, is the last one, or the section is none that can be taken from.
    """
    found = _section(text, section, name)
    if entry not in found.starts:
        raise ConfigError([YamlFile.parse(text, name).problem((section,), f"has no {entry!r}", at_key=True)])
    if len(found.starts) == 1:
        only = "is the only one, and one there has to be"
        raise ConfigError([YamlFile.parse(text, name).problem((section, entry), only, at_key=True)])
    begin = found.starts[entry]
    end = found.end(begin)
    if found.apart():
        if begin and not found.rows[begin - 1].strip():
            begin -= 1
        elif end < len(found.rows) and not found.rows[end].strip():
            end += 1
    return _taken_out(found.rows, begin, end)


def without_section(text: str, section: str, name: str = "") -> str:
    """`text` without a whole section in block style, and one blank line above it. Raises ConfigError where it is none."""
    found = _section(text, section, name)
    end = found.end(max(found.starts.values()))
    begin = found.begins
    if begin and not found.rows[begin - 1].strip():
        begin -= 1
    return _taken_out(found.rows, begin, end)


def without_items(text: str, places: Sequence[Path], name: str = "") -> str:
    """`text` without these entries of lists and mappings; of what would be empty then, its own entry goes.

    Raises ConfigError where one stands nowhere in it, or cannot be taken out by itself.
    """
    file = YamlFile.parse(text, name)
    cuts = [cut for parent, steps in _by_parent(file, places) for cut in _cuts(file, text, parent, steps)]
    left, at = "", 0
    for start, end in sorted(cuts):
        left, at = left + text[at:start], max(at, end)
    return left + text[at:]


def _taken_out(rows: Sequence[str], begin: int, end: int) -> str:
    """A text that ended with no newline still does."""
    left = "".join([*rows[:begin], *rows[end:]])
    unended = end == len(rows) and not rows[-1].endswith(("\n", "\r"))
    return left.removesuffix("\n").removesuffix("\r") if unended else left


def _by_parent(file: YamlFile, places: Sequence[Path]) -> list[tuple[tuple[str | int, ...], set[str | int]]]:
    """What is to go from each list or mapping; a parent of which all goes, goes from its own."""
    found: dict[tuple[str | int, ...], set[str | int]] = {}
    for place in places:
        found.setdefault(tuple(place[:-1]), set()).add(place[-1])
    for parent in sorted(found, key=len, reverse=True):
        if parent and len(_pairs(file.node(parent))) == len(found[parent]):
            del found[parent]
            found.setdefault(parent[:-1], set()).add(parent[-1])
    return list(found.items())


def _cuts(file: YamlFile, text: str, parent: Path, steps: Collection[str | int]) -> Iterator[tuple[int, int]]:
    """From which character to which, of one list or mapping."""
    node = file.node(parent)
    pairs = _pairs(node)
    spots = [n for n, (key, _) in enumerate(pairs) if (str(key.value) if isinstance(node, MappingNode) else n) in steps]
    block = isinstance(node, MappingNode | SequenceNode) and not node.flow_style
    if node is None or len(spots) != len(steps) or not _stand_there(node, pairs):
        raise ConfigError([file.problem(parent, "cannot be changed here; write it by hand")])
    for spot in spots:
        start, end = pairs[spot][0].start_mark.index, pairs[spot][1].end_mark.index
        if block:
            yield _rows_of(text, pairs[spot][0].start_mark.line, _last_row(pairs[spot][1]))
        elif spot + 1 < len(pairs):
            yield start, pairs[spot + 1][0].start_mark.index
        else:
            kept = [n for n in range(spot) if n not in spots]
            before = pairs[kept[-1]][1].end_mark.index if kept else start
            comma = re.match(r"\s*,", text[end:])
            yield (before, end) if "#" not in text[before:start] else (start, end + (comma.end() if comma else 0))


def _pairs(node: Node | None) -> list[tuple[Node, Node]]:
    if isinstance(node, MappingNode):
        return list(node.value)
    return [(item, item) for item in node.value] if isinstance(node, SequenceNode) else []


def _stand_there(node: Node, pairs: Sequence[tuple[Node, Node]]) -> bool:
    """Whether each stands where it is read: an alias is read as what stands elsewhere."""
    spots = [node.start_mark.index, *(mark.index for a, b in pairs for mark in (a.start_mark, b.end_mark))]
    return spots == sorted(spots) and len({a.start_mark.index for a, _ in pairs}) == len(pairs)


def _last_row(node: Node) -> int:
    """The last line that is the node's own: the end of a block is where the next thing begins."""
    if isinstance(node, MappingNode | SequenceNode) and not node.flow_style and node.value:
        return _last_row(_pairs(node)[-1][1])
    return int(node.end_mark.line) - int(node.end_mark.column == 0 and node.end_mark.line > node.start_mark.line)


def _rows_of(text: str, first: int, last: int) -> tuple[int, int]:
    rows = text.splitlines(keepends=True)
    while last > first and not rows[last].strip():
        last -= 1
    before = sum(map(len, rows[:first]))
    return before, before + sum(map(len, rows[first : last + 1]))


def _is_absent(text: str, section: str, name: str) -> bool:
    root = YamlFile.parse(text, name).root
    return isinstance(root, MappingNode) and not root.flow_style and all(str(k.value) != section for k, _ in root.value)


def _section(text: str, section: str, name: str) -> _Section:
    file = YamlFile.parse(text, name)
    pairs = file.root.value if isinstance(file.root, MappingNode) else []
    rows = text.splitlines(keepends=True)
    for key, value in pairs:
        begins = key.start_mark.line
        in_block = isinstance(value, MappingNode) and value.value and not value.flow_style and value.anchor is None
        if str(key.value) != section or not in_block or value.start_mark.line == begins:
            continue
        after = [node.start_mark.line for node, _ in pairs if node.start_mark.line > begins]
        starts = {str(node.value): node.start_mark.line for node, _ in value.value}
        return _Section(begins, starts, value.start_mark.column, min(after, default=len(rows)), rows)
    what = "can be edited only where its entries stand below it, each on lines of its own"
    raise ConfigError([file.problem((section,), what, at_key=True)])
