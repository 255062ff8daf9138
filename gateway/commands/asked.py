"""Which prompts a what-if is about: the options of its commands, and the prompts that they mean."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.commands.usage import ledger_url
from gateway.console import err, fail, printable

if TYPE_CHECKING:
    from gateway.traffic import Traffic

LEDGER = "ledger"  # in the place of a file
CALLED_WRONGLY = 2
SHOWN_PROBLEMS = 5
MOST = 5000

Source = Annotated[
    str,
    typer.Option(metavar="FILE|ledger", help="JSON lines with prompt or messages, - is stdin; or recorded traffic."),
]
Since = Annotated[str, typer.Option("--since", help="Of a ledger: 7d, 24h or 30m ago, 2026-11-30, or all.")]
Most = Annotated[int, typer.Option("--most", min=1, max=100_000, help="Of a ledger: so many of the newest prompts.")]
Ledger = Annotated[
    str | None,
    typer.Option(
        "--ledger",
        envvar="MOE_GATEWAY_LEDGER",
        help="The ledger's URL, as serve has it.",
        show_default="ledger.db in the state folder",
    ),
]


def asked_prompts(
    source: str, since: str, most: int, ledger: str | None, config: Path, state: Path | None, model: str = "auto"
) -> Traffic:
    """The prompts of `source`; lines that cannot be used are told of on standard error.

    Leaves with status 1 where there is no prompt, with 2 where `since` says no time.
    """
    traffic = _recorded(since, most, ledger, config, state) if source == LEDGER else _written(source, model)
    for problem in traffic.problems[:SHOWN_PROBLEMS]:
        err.print(f"warning: {printable(problem)}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    if (left := len(traffic.problems) - SHOWN_PROBLEMS) > 0:
        err.print(f"warning: {left} more lines cannot be used", style="yellow", highlight=False)
    if not traffic.prompts and source == LEDGER:
        fail("the ledger has no prompt of that time: they are recorded where serve has --ledger-prompts")
    if not traffic.prompts:
        fail(f'{source}: there is no prompt in it; a line is {{"prompt": …}} or {{"messages": […]}}')
    return traffic


def _written(source: str, model: str) -> Traffic:
    from gateway.traffic import read_lines

    if source == "-":
        return read_lines(sys.stdin.buffer, "stdin", model)
    with Path(source).open("rb") as lines:
        return read_lines(lines, Path(source).name, model)


def _recorded(since: str, most: int, ledger: str | None, config: Path, state: Path | None) -> Traffic:
    from gateway.ledger import urls
    from gateway.ledger.asked import AskedError, read_asked
    from gateway.ledger.errors import LedgerUrlError
    from gateway.ledger.reader import UnreadableError
    from gateway.traffic import read_ledger

    try:
        begin = read_asked({"since": since}).since
        url = ledger_url(ledger, config, state)
        urls.check(url)
    except (AskedError, LedgerUrlError) as error:
        fail(str(error), CALLED_WRONGLY)
    try:
        return read_ledger(url, begin, most)
    except UnreadableError as error:
        fail(f"{error} {error.told}".rstrip())
