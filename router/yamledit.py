"""Edits of a YAML file that people keep by hand: an entry is put in or taken out, and every other byte stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ruamel.yaml.nodes import MappingNode

from router.errors import ConfigError
from router.yamlfile import YamlFile


@dataclass(frozen=True)
class _Section:
    """Where its entries begin, by their keys: lines count from 0. `last` is the line of what follows the section."""

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
    """`text` with one more entry at the end of `section`, a mapping in block style.

    `lines` are the entry's own, its key at no indentation: they are indented, ended and parted from what stands above as their
    neighbours are. `name` stands in the errors. Raises ConfigError where the section is none that can be added to.
    """
    found = _section(text, section, name)
    end = found.end(max(found.starts.values()))
    newline = "\r\n" if "\r\n" in text else "\n"
    before = newline if found.rows[end - 1] == found.rows[end - 1].rstrip("\r\n") else ""
    indent = " " * found.column
    added = "".join((indent + line if line else "") + newline for line in ([""] if found.apart() else []) + [*lines])
    return "".join(found.rows[:end]) + before + added + "".join(found.rows[end:])


def without_entry(text: str, section: str, entry: str, name: str = "") -> str:
    """`text` without an entry of `section`, what is indented below it, and one blank line above it or else below.

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
    if begin and not found.rows[begin - 1].strip():
        begin -= 1
    elif end < len(found.rows) and not found.rows[end].strip():
        end += 1
    return "".join(found.rows[:begin] + found.rows[end:])


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
        return _Section(starts, value.start_mark.column, min(after, default=len(rows)), rows)
    what = "can be edited only where its entries stand below it, each on lines of its own"
    raise ConfigError([file.problem((section,), what, at_key=True)])
