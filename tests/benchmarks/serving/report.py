"""Shows what a run came to: a table on the terminal, tables in Markdown, a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table

from tests.benchmarks.serving.bars import Bar, bars
from tests.benchmarks.serving.results import Cell, Figure, Results, kinds_and_clients
from tests.benchmarks.serving.ways import TITLES, WAYS

START, END = "<!-- figures: make bench writes them -->", "<!-- end of figures -->"
KINDS = {
    "json": "whole answers (JSON)",
    "stream": "streams of 32 chunks, written at once",
    "each": "streams of 32 chunks, written one by one",
}
COLUMNS = (
    "way",
    "requests/s",
    "to straight",
    "to vllm-router",
    "CPU µs a request",
    "added p50, ms",
    "added p99, ms",
    "resident, MB",
)


def terminal(found: Results) -> Iterator[Table | str]:
    """What is printed, part by part."""
    for kind, clients in kinds_and_clients(found):
        table = Table(*COLUMNS, title=heading(kind, clients), box=None, pad_edge=False, title_justify="left")
        for number, column in enumerate(table.columns):
            column.justify, column.no_wrap = "right" if number else "left", True
        for row in rows(found, kind, clients):
            table.add_row(*row)
        yield table
        yield ""
    yield from notes(found)


def heading(kind: str, clients: int) -> str:
    return f"{KINDS[kind]}, {clients} client{'s' if clients > 1 else ''}"


def rows(found: Results, kind: str, clients: int) -> Iterator[list[str]]:
    for way in WAYS:
        if cell := found.cell(way, kind, clients):
            yield _row(cell)


def _row(cell: Cell) -> list[str]:
    name = TITLES[cell.way] + (f" ({cell.failed} failed)" if cell.failed else "")
    return [
        name,
        _reach(cell.rate, 1, ",.0f"),
        _reach(cell.to_straight, 1, ".3f"),
        _reach(cell.to_router, 1, ".2f"),
        _reach(cell.cpu, 1e6, ",.0f"),
        _reach(cell.added50, 1e3, ".2f"),
        _reach(cell.added99, 1e3, ".1f"),
        f"{cell.resident:,.0f}",
    ]


def _reach(figure: Figure | None, scale: float, style: str) -> str:
    if figure is None:
        return "–"
    middle, least, most = (format(value * scale, style) for value in (figure.median, figure.least, figure.most))
    return f"{middle} [{least}–{most}]"


def notes(found: Results) -> Iterator[str]:
    """What the table does not say."""
    for kind, clients in kinds_and_clients(found):
        if ratio := found.auto_to_pass.get(f"{kind}, {clients}"):
            where = heading(kind, clients)
            yield f"auto makes {_reach(ratio, 1, '.2f')} of the requests a second of an expert asked by name: {where}"
    decided = sum(found.stages.values())
    if decided:
        shares = ", ".join(f"{stage} {count:,} ({count / decided:.1%})" for stage, count in found.stages.items())
        yield f"{decided:,} different prompts were classified for auto, by stage: {shares}"
    yield f"others took {_reach(found.others, 100, '.0f')} % of the machine's CPU time meanwhile"


def markdown(found: Results) -> str:
    """The tables, for the document."""
    parts = []
    for kind, clients in kinds_and_clients(found):
        parts.append(f"### {heading(kind, clients).capitalize()}\n".replace("(json)", "(JSON)"))
        parts.append("\n".join(_lines([COLUMNS, *rows(found, kind, clients)])) + "\n")
    parts.append("\n".join(f"- {note}" for note in notes(found)) + "\n")
    return "\n".join(parts)


def _lines(table: Sequence[Sequence[str]]) -> Iterator[str]:
    for number, row in enumerate(table):
        yield f"| {' | '.join(row)} |"
        if number == 0:
            yield f"|---{'|---:' * (len(row) - 1)}|"


def inserted(document: str, figures: str) -> str:
    """`document` with the figures between its marks. Raises ValueError where it has none."""
    before, start, rest = document.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError("the document has no place for the figures")
    return f"{before}{START}\n\n{figures}\n{END}{after}"


def picture(found: Results, clients: int) -> str:
    """CPU time a request, the steadiest figure of a busy machine, with so many clients."""
    groups = {}
    for kind in dict.fromkeys(cell.kind for cell in found.cells):
        cells = [cell for way in WAYS if (cell := found.cell(way, kind, clients))]
        if cells:
            groups[KINDS[kind]] = [_bar(cell) for cell in cells]
    foot = "microseconds of CPU time a request, all processes of the server; the line is the reach over the rounds"
    return bars(groups, f"CPU time to carry one request, {clients} clients", foot)


def _bar(cell: Cell) -> Bar:
    cpu = cell.cpu
    middle, least, most = (max(1.0, 1e6 * value) for value in (cpu.median, cpu.least, cpu.most))
    return Bar(TITLES[cell.way], middle, least, most, f"{middle:,.0f} µs")
