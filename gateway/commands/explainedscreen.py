"""The picture of `moe-gateway check --explain`: the file as it counts, and beside each value where it comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from gateway.checking.explained import Setting

MOST_SHOWN = 60  # characters of a value
COLUMN = 64  # at which the origins stand, at most


def pictured(settings: Sequence[Setting]) -> Iterator[Text]:
    """A line for each value, and for each section that it is in."""
    lines = list(_lines(settings))
    column = min(COLUMN, max((cell_len(text) for text, _ in lines), default=0)) + 2
    for text, setting in lines:
        if setting is None:
            yield Text(text, "bold")
            continue
        gap = " " * max(2, column - cell_len(text))
        yield Text.assemble((text, "" if setting.origin else "dim"), gap, _from(setting))


def _lines(settings: Sequence[Setting]) -> Iterator[tuple[str, Setting | None]]:
    above: tuple[str | int, ...] = ()
    for setting in settings:
        *sections, key = setting.path
        for depth, section in enumerate(sections):
            if tuple(sections[: depth + 1]) != above[: depth + 1]:
                yield f"{'  ' * depth}{_name(section)}:", None
        above = tuple(sections)
        yield f"{'  ' * len(sections)}{_name(key)}: {_value(setting)}", setting


def _name(step: str | int) -> str:
    return f"[{step}]" if isinstance(step, int) else _printable(step)


def _value(setting: Setting) -> str:
    value = setting.value
    if setting.path[0] == "domains" and setting.path[-1] == "examples" and value:
        return f"{len(value)} prompts"
    text = value if isinstance(value, str) and value else _as_json(value)
    text = _printable(text)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


def _as_json(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "–" if value is None else json.dumps(value, ensure_ascii=False)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def _from(setting: Setting) -> Text:
    if setting.origin is None:
        return Text("default", "dim")
    place = Text(f"{setting.origin.file}:{setting.origin.line}", "blue")
    return Text.assemble(place, "  ", (_printable(setting.reference), "magenta")) if setting.reference else place
