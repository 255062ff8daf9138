"""moe-gateway corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from gateway.commands.shared import Json
from gateway.console import err, fail, out, print_json
from router.experts import BUILT_IN_DOMAINS

if TYPE_CHECKING:
    from router.authoring.authored import Finding
    from router.authoring.balance import Balance

TITLES = {"lengths": "words", "alternates": "alternates explained by"}


def corpus(
    folder: Annotated[
        Path | None, typer.Argument(help="A folder of JSON lines; the packaged corpus where not given.")
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option("--against", metavar="FILE", help="An evaluation set that must not be in the corpus."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what the training prompts are made of, and what is wrong with them; exit status 1 where anything is.

    Example: moe-gateway corpus --against prompts.jsonl.gz
    """
    from router.authoring.lint import lint
    from router.dataset import CORPUS

    for path in against or []:
        if not path.is_file():
            fail(f"there is no {path}")
    report = lint(folder or CORPUS, against=against or [])
    if as_json:
        print_json(report.described())
    else:
        print_balance(report.balance)
        _print_findings(report.findings)
    if report.findings:
        raise typer.Exit(1)


def print_balance(balance: Balance) -> None:
    """Rows by domain, and by language, style, kind, length, surface and topic; and what explains alternates."""
    out.print(_table("rows", {"all": balance.domains}), highlight=False)
    for name in ("languages", "styles", "kinds", "lengths", "surfaces", "topics", "alternates"):
        if counts := getattr(balance, name):
            out.print(_table(TITLES.get(name, name.removesuffix("s")), counts), highlight=False)


def _table(title: str, counts: Mapping[str, Counter[str]]) -> Table:
    from router.explaining.explanation import line_of

    table = Table(title, "rows", *BUILT_IN_DOMAINS, box=None, header_style="bold", padding=(0, 2))
    for column in table.columns[1:]:
        column.justify = "right"
    for name, by_domain in counts.items():
        figures = (str(by_domain[domain] or "·") for domain in BUILT_IN_DOMAINS)
        table.add_row(escape(line_of(name)), str(by_domain.total()), *figures)
    return table


def _print_findings(findings: Sequence[Finding]) -> None:
    for finding in findings:
        err.print(str(finding), style="red", markup=False, highlight=False, soft_wrap=True)
    checks = Counter(finding.check for finding in findings)
    summary = ", ".join(f"{count} {check}" for check, count in checks.most_common()) or "no problem"
    out.print(summary, highlight=False, markup=False, soft_wrap=True)
