"""The ledger's figures as people look at them: a table with a total, and a bar for what each group spends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich import box
from rich.bar import Bar
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from gateway.ledger.asked import EVER
from gateway.ledger.report import Figures, Report
from gateway.watching.screen import seconds

BAR = 9  # columns
NONE, DASH = "(none)", "[dim]–[/]"
LONGEST_NAME = 32  # columns
CENTS_FROM_USD = 100  # of all together: where so much is spent parts of a cent are of no interest
WHEN = "%Y-%m-%d %H:%M"


@dataclass(frozen=True)
class Column:
    """`cell` is told how many digits money has behind the point. `need` is how much the column would be missed: on a narrow
    terminal those with the least are left out first."""

    title: str
    cell: Callable[[Figures, int], str]
    need: int


COLUMNS = (
    Column("requests", lambda row, _: f"{row.sums['requests']:,.0f}", 9),
    Column("errors", lambda row, _: _errors(row), 7),
    Column("input", lambda row, _: compact(row.sums["input_tokens"]), 2),
    Column("cached", lambda row, _: compact(row.sums["cached_input_tokens"]), 1),
    Column("output", lambda row, _: compact(row.sums["output_tokens"]), 2),
    Column("tokens", lambda row, _: compact(row.tokens), 6),
    Column("each", lambda row, _: compact(row.tokens / max(1, row.sums["requests"])), 0),
    Column("p50", lambda row, _: seconds(row.p50), 0),
    Column("p95", lambda row, _: seconds(row.p95), 4),
    Column("cost", lambda row, digits: _cost(row, digits), 9),
    Column("baseline", lambda row, digits: _compared(row, digits), 3),
    Column("saved", lambda row, digits: _saved(row, digits), 8),
)
BAR_NEED = 5


def screen(report: Report, console: Console) -> RenderableType:
    """As much of it as the console is wide for."""
    asked = report.asked
    since, until = (m.astimezone(asked.zone).strftime(WHEN) if m else "now" for m in (asked.since, asked.until))
    named = (("expert", asked.experts), ("key", asked.keys))
    whose = "".join(f", {what} {', '.join(names)}" for what, names in named if names)
    since = "the beginning" if asked.since == EVER else since
    head = Text(f"Usage from {since} to {until}, {asked.zone}{whose}", "bold", overflow="fold")
    if not report.rows:
        return Group(head, Text("no requests"))
    return Group(head, _fitting(report, console), *(Text(note, "dim") for note in _notes(report)))


def _fitting(report: Report, console: Console) -> Table:
    """Without the columns that are missed least, one after the other, until it fits."""
    wide = console.options.update(max_width=10_000)
    tables = [_table(report, need) for need in sorted({BAR_NEED, *(column.need for column in COLUMNS)})]
    return next((t for t in tables if console.measure(t, options=wide).maximum <= console.width), tables[-1])


def _table(report: Report, need: int) -> Table:
    """With the columns that are needed so much."""
    table = Table(
        box=box.SIMPLE, pad_edge=False, padding=(0, 2, 0, 0), show_footer=bool(report.asked.by), header_style="dim"
    )
    for number, group in enumerate(report.asked.by):
        table.add_column(
            group, "total" if number == 0 else "", no_wrap=True, overflow="ellipsis", max_width=LONGEST_NAME
        )
    columns = [column for column in COLUMNS if column.need >= need]
    digits = 2 if report.total.paid_usd >= CENTS_FROM_USD else 4
    for column in columns:
        table.add_column(column.title, column.cell(report.total, digits), justify="right", no_wrap=True)
    most = max((row.paid_usd for row in report.rows), default=0.0)
    if bars := most > 0 and len(report.rows) > 1 and need <= BAR_NEED:
        table.add_column("", no_wrap=True)
    for row in report.rows:
        bar = [Bar(most, 0, row.paid_usd, width=BAR, color="cyan")] if bars else []
        table.add_row(*map(_name, row.names), *(column.cell(row, digits) for column in columns), *bar)
    return table


def _notes(report: Report) -> Iterator[str]:
    sums = report.total.sums
    if sums["estimated_usd"]:
        yield f"~ {_usd(sums['estimated_usd'], 4)} of the cost is estimated: experts that are paid by the hour"
    if sums["compared"]:
        yield f"saved: {sums['compared'] / sums['requests']:.0%} of the requests could be compared with the baseline"
    if unpriced := sums["requests"] - sums["priced"]:
        yield f"{unpriced:,.0f} requests have no cost by token prices: no price, or no usage told"


def _name(name: str | None) -> Text:
    if name is None:
        return Text(NONE, "dim")
    return Text("".join(c if c.isprintable() else "�" for c in name))


def _errors(row: Figures) -> str:
    errors = row.sums["errors"]
    return f"[red]{errors / row.sums['requests']:.1%}[/]" if errors else "[dim]0[/]"


def _cost(row: Figures, digits: int) -> str:
    if not row.sums["priced"] and not row.sums["estimated_usd"]:
        return DASH
    return f"{'~' if row.sums['estimated_usd'] else ''}{_usd(row.paid_usd, digits)}"


def _compared(row: Figures, digits: int) -> str:
    return _usd(row.sums["baseline_usd"], digits) if row.sums["compared"] else DASH


def _saved(row: Figures, digits: int) -> str:
    saved = row.savings_usd
    if saved is None:
        return DASH
    return f"[{'green' if saved >= 0 else 'red'}]{_usd(saved, digits)}[/]"


def _usd(value: float, digits: int) -> str:
    return f"{'-' if value < 0 else ''}${abs(value):,.{digits}f}"


def compact(value: float) -> str:
    """Three digits that count, and the unit."""
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= 0.9995 * size:
            value /= size
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}{unit}"
    return f"{value:.0f}"
