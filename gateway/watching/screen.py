"""A board as people look at it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gateway.watching.board import Board, Row

HEALTH = {"up": "green", "partly": "yellow", "starting": "yellow", "asleep": "cyan", "down": "bold red"}
BARS = "▁▂▃▄▅▆▇█"
HISTORY = 12  # columns of the small plot of rates
NARROW = 120  # columns, below which some figures are left out
SORTS: dict[str, Callable[[Row], float]] = {
    "file": lambda row: 0.0,
    "rate": lambda row: -row.rate,
    "p95": lambda row: -(row.p95 or 0.0),
    "cost": lambda row: -row.usd_per_hour,
    "failing": lambda row: -(row.failing or 0.0),
}


@dataclass(frozen=True)
class Column:
    """`wide` is one for wide terminals alone, `sort` the order that it is named by."""

    title: str
    cell: Callable[[Row], str]
    wide: bool = False
    sort: str | None = None


def screen(board: Board, width: int, sort: str = "file", first: int = 0, rows: int | None = None) -> RenderableType:
    """`rows` experts from number `first` on, all of them where it is None."""
    shown = list(islice(sorted(board.rows, key=SORTS[sort]), first, None if rows is None else first + rows))
    parts: list[RenderableType] = [*_header(board), Text(""), _table(shown, width, sort)]
    if hidden := len(board.rows) - len(shown):
        parts.append(Text(f"… {hidden} more (arrow keys)", "dim"))
    return Group(*parts)


def _header(board: Board) -> list[Text]:
    loaded = f", loaded {duration(board.loaded_ago)} ago" if board.loaded_ago is not None else ""
    title = f"[b]moe-gateway {escape(board.version)}[/b]  [dim]experts.yaml {escape(board.config)}{loaded}[/dim]"
    load = (
        f"[b]{board.rate:.1f}[/b] requests/s  [b]{board.tokens:.0f}[/b] tokens/s  [b]{board.in_flight}[/b] in flight  "
        f"errors {_share(board.errors)}"
    )
    took = f"p95 {seconds(board.p95)}  gateway's own p95 {seconds(board.overhead_p95)}"
    cost = f"[b]{usd(board.usd_per_hour)}[/b]/h  {usd(board.spent)} since it started"
    if board.saved is not None:
        colour = "green" if board.saved >= 0 else "red"
        cost += f"  [{colour}]{usd(board.saved)}[/] saved against {escape(str(board.baseline))}"
    return [Text.from_markup(line) for line in (title, load, took, cost)]


def _table(rows: Sequence[Row], width: int, sort: str) -> Table:
    """On a narrow terminal without the columns that are in COLUMNS for wide ones."""
    columns = [column for column in COLUMNS if width >= NARROW or not column.wide]
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("expert", overflow="ellipsis", no_wrap=True, max_width=24 if width >= NARROW else 18)
    table.add_column("health", no_wrap=True)
    for column in columns:
        title = f"{column.title}↓" if column.sort == sort else column.title
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(escape(row.expert), _health(row), *(column.cell(row) for column in columns))
    return table


def _health(row: Row) -> str:
    counted = f" {row.up}/{row.replicas}" if row.health in ("up", "partly") and row.replicas > 1 else ""
    mismatch = " [red]≠[/]" if row.mismatch else ""
    return f"[{HEALTH[row.health]}]{row.health}{counted}[/]{mismatch}"


def _share(share: float | None) -> str:
    if share is None:
        return "[dim]–[/]"
    return f"[red]{share:.1%}[/]" if share else "0%"


def _queued(row: Row) -> str:
    return f"[yellow]{row.queued}[/]" if row.queued else "0"


def seconds(value: float | None) -> str:
    """With the unit that leaves few digits; a dash for None."""
    if value is None:
        return "[dim]–[/]"
    if value < 0.001:
        return f"{value * 1e6:.0f} µs"
    if value < 1:
        return f"{value * 1e3:.3g} ms" if value < 0.1 else f"{value * 1e3:.0f} ms"
    return f"{value:.1f} s" if value < 100 else f"{value:.0f} s"


def duration(value: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if value >= size:
            return f"{value / size:.0f} {unit}"
    return f"{value:.0f} s"


def usd(value: float) -> str:
    """Two digits behind the point from a cent on, else two that count."""
    sign, size = "-" if value < 0 else "", abs(value)
    if size >= 0.1 or size == 0:
        return f"{sign}${size:,.2f}"
    return f"{sign}${size:.2g}" if size >= 0.0001 else f"{sign}$0.0001" if size >= 0.00005 else f"{sign}$0.00"


def sparkline(values: Sequence[float], columns: int = HISTORY) -> str:
    """The last values as bars, the largest of them as high as it goes; nothing is the lowest bar."""
    last = values[-columns:]
    top = max(last, default=0.0)
    return "".join(BARS[round(value / top * (len(BARS) - 1))] if top else BARS[0] for value in last).rjust(columns)


COLUMNS = (
    Column("req/s", lambda row: f"{row.rate:.1f}", sort="rate"),
    Column("in flight", lambda row: str(row.in_flight)),
    Column("queued", _queued, wide=True),
    Column("failing", lambda row: _share(row.failing), sort="failing"),
    Column("p95", lambda row: seconds(row.p95), sort="p95"),
    Column("TTFT", lambda row: seconds(row.ttft)),
    Column("TTFT p95", lambda row: seconds(row.ttft_p95), wide=True),
    Column("tokens/s", lambda row: f"{row.tokens:.0f}", wide=True),
    Column("$/hour", lambda row: usd(row.usd_per_hour), sort="cost"),
    Column("requests", lambda row: sparkline(row.history), wide=True),
)
