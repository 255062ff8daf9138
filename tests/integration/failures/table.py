"""docs/failures.md as data: one Row for each of its rows. What the tables say in other words than these is an error."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from gateway.exchange import Outcome

DOCUMENT = Path(__file__).parents[3] / "docs" / "failures.md"
COLUMNS = ("id", "event", "asked", "next", "client gets", "outcome", "health", "billed")


class Next(StrEnum):
    FRESH = "fresh"
    NEXT = "next"
    LARGER = "larger"
    NONE = "none"


class Gets(StrEnum):
    """What kind of thing the client gets."""

    ERROR = "error"  # a status, and a code in an error object
    OWN = "own"  # the upstream's own status and body
    EVENT = "event"  # an error event at the end of what came
    ANSWER = "answer"
    NOTHING = "–"


class Health(StrEnum):
    FAULT = "fault"
    DRAIN = "drain"
    NONE = "–"


class Billed(StrEnum):
    ANSWER = "answer"
    TOLD = "told"
    NOTHING = "nothing"


@dataclass(frozen=True)
class Row:
    """`status` and `code` as far as the row tells them; `outcome` is None where no attempt is made."""

    id: str
    asked: tuple[bool, ...]  # for each way of asking, whether it is a stream
    next: Next
    gets: Gets
    status: int | None
    code: str | None
    retry_after: bool
    outcome: Outcome | None
    health: Health
    billed: Billed


def rows(text: str | None = None) -> list[Row]:
    """Every row of every table whose columns are these. Raises ValueError for a cell that has no meaning."""
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (DOCUMENT.read_text("utf-8") if text is None else text).splitlines()
        if line.count("|") == len(COLUMNS) + 1
    ]
    tabled = [_row(*row) for row in cells if tuple(row) != COLUMNS and set("".join(row)) != {"-"}]
    ids = [row.id for row in tabled]
    if len(ids) != len(set(ids)):
        raise ValueError(f"rows that stand twice: {sorted({name for name in ids if ids.count(name) > 1})}")
    return tabled


def _row(name: str, event: str, asked: str, following: str, gets: str, outcome: str, health: str, billed: str) -> Row:
    if not event:
        raise ValueError(f"{name}: no event")
    kind, status, code = _gets(gets)
    return Row(
        name,
        {"both": (False, True), "stream": (True,), "whole": (False,)}[asked],
        Next(following.strip("`")),
        kind,
        status,
        code,
        gets.endswith(", retry-after"),
        None if outcome == "*no attempt*" else Outcome(outcome.strip("`")),
        Health(health.strip("`")),
        Billed(billed.strip("`")),
    )


def _gets(cell: str) -> tuple[Gets, int | None, str | None]:
    if match := re.fullmatch(r"(\d{3}) `(\w+)`(, retry-after)?", cell):
        return Gets.ERROR, int(match[1]), match[2]
    if match := re.fullmatch(r"\*its own\* (\d{3})", cell):
        return Gets.OWN, int(match[1]), None
    if match := re.fullmatch(r"\*event\* `(\w+)`", cell):
        return Gets.EVENT, 200, match[1]
    if cell == "*answer*":
        return Gets.ANSWER, 200, None
    if cell == "–":
        return Gets.NOTHING, None, None
    raise ValueError(f"what the client gets is not clear: {cell!r}")
