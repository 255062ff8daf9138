"""moe-gateway check."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gateway.commands.shared import DEFAULT_CONFIG, State, state_folder
from gateway.console import out, print_json

if TYPE_CHECKING:
    from gateway.checking.report import Report
    from gateway.inspection import Inspected
    from router.experts import ExpertsFile

Format = Literal["text", "github", "json"]


def check(
    file: Annotated[Path, typer.Argument(help="The experts file.")] = DEFAULT_CONFIG,
    live: Annotated[bool, typer.Option("--live", help="Ask every upstream whether it is as the file says.")] = False,
    ask: Annotated[bool, typer.Option("--ask", help="With --live: have each replica generate one token too.")] = False,
    timeout: Annotated[float, typer.Option(help="With --live: seconds for each question.", min=0.1, max=600)] = 5.0,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print every value that counts, and where it comes from.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="End with status 1 where there are warnings, too.")] = False,
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="CODE", help="Leave out warnings of this kind; may be repeated.")
    ] = None,
    format: Annotated[Format, typer.Option(help="A picture, annotations of GitHub's workflows, or JSON.")] = "text",
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    state: State = None,
) -> None:
    """Say what is wrong with an experts file and what will bite, each with its place; with --live, of its upstreams too.

    Example: moe-gateway check experts.yaml --live
    """
    from gateway.checking.report import examined

    if ask and not live:
        raise typer.BadParameter("goes with --live", param_hint="--ask")
    report = examined(file, _known(ignore or []))
    inspected = _inspected(report.experts, state_folder(file, state), timeout, ask) if live and report.experts else None
    failed = bool(report.errors) or (strict and bool(report.warnings)) or any(r.problems for r in inspected or ())
    if as_json or format == "json":
        print_json(_described(report, inspected, ok=not failed, explain=explain))
    elif format == "github":
        _annotate(report, inspected, file)
    else:
        if explain:
            _show_explained(report)
        _show_report(report, file)
        if inspected is not None:
            from gateway.commands.livescreen import show

            show(inspected)
    if failed:
        raise typer.Exit(1)


def _known(codes: list[str]) -> list[str]:
    """Codes of warnings. Raises BadParameter for one that there is not."""
    from gateway.checking.report import CODES
    from router.validation import nearest

    for code in codes:
        if code not in CODES:
            raise typer.BadParameter(f"no warning is called {code!r}{nearest(code, CODES)}", param_hint="--ignore")
    return codes


def _inspected(file: ExpertsFile, state: Path, seconds: float, ask: bool) -> list[Inspected]:
    from gateway.inspection import inspect

    logging.getLogger("moe_gateway").setLevel(logging.CRITICAL)  # what it has to say stands in the table
    return asyncio.run(inspect(file, state, seconds, ask))


def _described(report: Report, inspected: Sequence[Inspected] | None, ok: bool, explain: bool) -> dict[str, Any]:
    from gateway.checking.explained import explained

    if report.experts is None:
        return {"ok": False, "problems": [finding.described() for finding in report.errors]}
    described: dict[str, Any] = {
        "ok": ok,
        "experts": list(report.experts.experts),
        "domains": report.experts.domain_names,
        "hash": report.experts.digest,
        "warnings": [finding.described() for finding in report.warnings],
    }
    if explain:
        described["values"] = [setting.described() for setting in explained(report)]
    if inspected is not None:
        described["live"] = [{n: getattr(replica, n) for n in replica.__struct_fields__} for replica in inspected]
    return described


def _show_report(report: Report, path: Path) -> None:
    from gateway.checking.excerpt import WIDTH
    from gateway.checking.formats import counted, pictured

    width = max(40, out.width - 10) if out.is_terminal else WIDTH
    for picture in pictured(report.findings, report.lines, width):
        out.print(picture, highlight=False, soft_wrap=True)
    if report.experts is None:
        out.print(f"{path}: {counted(report.findings)}", style="red", highlight=False, markup=False, soft_wrap=True)
        return
    out.print(_fine(path, report.experts, counted(report.findings)), highlight=False, markup=False, soft_wrap=True)


def _show_explained(report: Report) -> None:
    from gateway.checking.explained import explained
    from gateway.commands.explainedscreen import pictured

    for line in pictured(explained(report)):
        out.print(line, highlight=False, soft_wrap=True)
    out.print()


def _fine(path: Path, file: ExpertsFile, warned: str) -> str:
    stand_ins = sum(expert.stand_in for expert in file.experts.values())
    note = f", of which {stand_ins} are stand-ins" if stand_ins else ""
    but = f"; {warned}" if warned else ""
    return f"{path}: fine: {len(file.experts)} experts{note}, domains {', '.join(file.domain_names)}{but}"


def _annotate(report: Report, inspected: Sequence[Inspected] | None, path: Path) -> None:
    from gateway.checking.formats import annotation, counted

    live = [
        report.mismatch(replica.expert, f"{replica.replica}: {why}")
        for replica in inspected or ()
        for why in replica.problems
    ]
    for finding in (found := [*report.findings, *live]):
        typer.echo(annotation(finding))
    typer.echo(f"{path}: {counted(found) or 'fine'}")
