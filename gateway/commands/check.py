"""moe-gateway check."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gateway.commands.shared import DEFAULT_CONFIG, State, state_folder
from gateway.console import out, print_json
from router.references import secrets_assumed

if TYPE_CHECKING:
    from gateway.checking.findings import Finding
    from gateway.checking.report import Report
    from gateway.inspection import Inspected
    from router.experts import ExpertsFile

Format = Literal["text", "github", "json"]


@dataclass(frozen=True)
class _Checked:
    """A file, what was found in it and of its upstreams, and whether that is as it should be."""

    report: Report
    inspected: Sequence[Inspected] | None
    ok: bool


def check(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE", help="The experts files.  [default: experts.yaml]")
    ] = None,
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
    without_secrets: Annotated[
        bool, typer.Option("--without-secrets", help="Take secrets that are not there for given, as in CI.")
    ] = False,
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
    if without_secrets and live:
        raise typer.BadParameter("does not go with --live, which needs them", param_hint="--without-secrets")
    ignored = _known(ignore or [])
    checked = []
    for file in files or [DEFAULT_CONFIG]:
        with secrets_assumed() if without_secrets else nullcontext():
            report = examined(file, ignored)
        inspected = None
        if live and report.experts is not None:
            inspected = _inspected(report.experts, state_folder(file, state), timeout, ask)
        wrong = report.errors or (strict and report.warnings) or any(r.problems for r in inspected or ())
        checked.append(_Checked(report, inspected, not wrong))
    if as_json or format == "json":
        described = [_described(one, explain) for one in checked]
        several = {"ok": all(one.ok for one in checked), "files": described}
        print_json(described[0] if len(described) == 1 else several)
    else:
        for one in checked:
            _annotate(one) if format == "github" else _show(one, explain)
    if not all(one.ok for one in checked):
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


def _described(checked: _Checked, explain: bool) -> dict[str, Any]:
    from gateway.checking.explained import explained

    report = checked.report
    if report.experts is None:
        problems = [finding.described() for finding in report.errors]
        return {"ok": False, "file": str(report.path), "problems": problems}
    described: dict[str, Any] = {
        "ok": checked.ok,
        "file": str(report.path),
        "experts": list(report.experts.experts),
        "domains": report.experts.domain_names,
        "hash": report.experts.digest,
        "warnings": [finding.described() for finding in report.warnings],
    }
    if explain:
        described["values"] = [setting.described() for setting in explained(report)]
    if checked.inspected is not None:
        described["live"] = [
            {n: getattr(replica, n) for n in replica.__struct_fields__} for replica in checked.inspected
        ]
    return described


def _show(checked: _Checked, explain: bool) -> None:
    from gateway.checking.excerpt import WIDTH
    from gateway.checking.formats import counted, pictured

    report = checked.report
    if explain:
        _show_explained(report)
    width = max(40, out.width - 10) if out.is_terminal else WIDTH
    for picture in pictured(report.findings, report.lines, width):
        out.print(picture, highlight=False, soft_wrap=True)
    said, style = f"{report.path}: {counted(report.findings)}", "red"
    if report.experts is not None:
        said, style = (
            _fine(report.path, report.experts, counted(report.findings)),
            "yellow" if report.findings else "green",
        )
    out.print(said, style=style, highlight=False, markup=False, soft_wrap=True)
    if checked.inspected is not None:
        from gateway.commands.livescreen import show

        show(checked.inspected)


def _show_explained(report: Report) -> None:
    from gateway.checking.explained import explained
    from gateway.commands.explainedscreen import pictured

    for line in pictured(explained(report)):
        out.print(line, highlight=False, soft_wrap=True)
    if report.experts is not None:
        out.print()


def _fine(path: Path, file: ExpertsFile, warned: str) -> str:
    stand_ins = sum(expert.stand_in for expert in file.experts.values())
    note = f", of which {stand_ins} are stand-ins" if stand_ins else ""
    experts = f"{len(file.experts)} expert{'' if len(file.experts) == 1 else 's'}"
    but = f"; {warned}" if warned else ""
    return f"{path}: fine: {experts}{note}, domains {', '.join(file.domain_names)}{but}"


def _annotate(checked: _Checked) -> None:
    from gateway.checking.formats import annotation, counted

    found: list[Finding] = [
        *checked.report.findings,
        *(
            checked.report.mismatch(replica.expert, f"{replica.replica}: {why}")
            for replica in checked.inspected or ()
            for why in replica.problems
        ),
    ]
    for finding in found:
        typer.echo(annotation(finding))
    typer.echo(f"{checked.report.path}: {counted(found) or 'fine'}")
