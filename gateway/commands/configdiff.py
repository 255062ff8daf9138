"""How two configurations differ: line by line, fit to be shown, and in words where both can be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

from gateway.console import out

if TYPE_CHECKING:
    from router.sources import Sources

CONTEXT = 3  # lines around what differs
MANY = 2_000  # lines, of which those that stand there often are matched no more: that takes the square of their number
STYLES = {"+": "green", "-": "red", "@": "cyan"}


@dataclass(frozen=True)
class FileDiff:
    """Of one file. `lines` begin with `+`, `-`, a blank or `@@`; secrets in them are masked."""

    name: str
    lines: tuple[str, ...]

    @property
    def added(self) -> int:
        return sum(line.startswith("+") for line in self.lines)

    @property
    def removed(self) -> int:
        return sum(line.startswith("-") for line in self.lines)


@dataclass(frozen=True)
class Difference:
    """`changes` are None where one of the two cannot be read as a configuration."""

    files: tuple[FileDiff, ...]
    changes: tuple[str, ...] | None

    def described(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "same": not self.files,
            "files": [{"name": f.name, "added": f.added, "removed": f.removed, "diff": f.lines} for f in self.files],
            "changes": self.changes,
        }


def difference(old: Sources, new: Sources) -> Difference:
    names = dict.fromkeys((*old.texts, *new.texts))
    files = [FileDiff(name, tuple(_lines(old.texts, new.texts, name))) for name in names]
    return Difference(tuple(file for file in files if file.lines), _changes(old, new))


def show(found: Difference, old: str, new: str) -> None:
    """`old` and `new` say what they are."""
    from rich.text import Text

    for file in found.files:
        out.print(Text(_printable(f"--- {file.name}  {old}"), "bold"), soft_wrap=True)
        out.print(Text(_printable(f"+++ {file.name}  {new}"), "bold"), soft_wrap=True)
        for line in file.lines:
            out.print(Text(_printable(line), STYLES.get(line[0], "")), soft_wrap=True)
    if not found.files:
        out.print("no difference", highlight=False)
    elif found.changes is None:
        out.print("\nOne of the two cannot be read: moe-gateway check says what is wrong with a file.", highlight=False)
    else:
        out.print()
        for change in found.changes or ("Comments, order or spelling alone differ.",):
            out.print(Text(f"• {change}"), soft_wrap=True)


def _changes(old: Sources, new: Sources) -> tuple[str, ...] | None:
    from gateway.reloading.changes import changes
    from router.errors import ConfigError
    from router.experts import parse_sources

    try:
        return tuple(map(str, changes(parse_sources(old), parse_sources(new))))
    except ConfigError:
        return None


def _lines(old: Mapping[str, str], new: Mapping[str, str], name: str) -> Iterator[str]:
    from gateway.checking.masking import masked

    before, after = old.get(name, "").splitlines(), new.get(name, "").splitlines()
    many = len(after) > MANY
    for group in SequenceMatcher(None, before, after, autojunk=many).get_grouped_opcodes(CONTEXT):
        first, last = group[0], group[-1]
        yield f"@@ -{_range(first[1], last[2])} +{_range(first[3], last[4])} @@"
        for tag, i, j, k, m in group:
            if tag == "equal":
                yield from (f" {masked(after, n + 1)[0]}" for n in range(k, m))
                continue
            yield from (f"-{masked(before, n + 1)[0]}" for n in range(i, j))
            yield from (f"+{masked(after, n + 1)[0]}" for n in range(k, m))


def _range(begin: int, end: int) -> str:
    """Line and length; of nothing, the line before it."""
    return f"{begin + (end > begin)},{end - begin}"


def _printable(line: str) -> str:
    return "".join(c if c.isprintable() else "    " if c == "\t" else "�" for c in line)
