"""Formats: findings as a picture for a terminal, and as the annotations of GitHub's workflows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.text import Text

from gateway.checking.excerpt import WIDTH, excerpt
from gateway.checking.findings import Finding
from gateway.console import printable

Lines = Mapping[str, Sequence[str]]  # of each file, by its name
_STYLE = {"error": "bold red", "warning": "bold yellow"}


def pictured(findings: Sequence[Finding], lines: Lines, width: int = WIDTH) -> Iterator[Text]:
    """A block of lines for each, those of a file together; a heading for each file where there are several."""
    files = list(dict.fromkeys(finding.problem.file for finding in findings))
    for file in files:
        own = [finding for finding in findings if finding.problem.file == file]
        if len(files) > 1:
            yield Text.assemble((printable(file), "bold underline"), f"  {counted(own)}")
        for finding in own:
            yield _picture(finding, lines.get(file, ()), width)


def counted(findings: Iterable[Finding]) -> str:
    """How many of each severity: `2 errors, 1 warning`."""
    counts = Counter(finding.severity for finding in findings)
    return ", ".join(f"{n} {what}{'s' * (n != 1)}" for what in ("error", "warning") if (n := counts[what]))


def _picture(finding: Finding, lines: Sequence[str], width: int) -> Text:
    problem = finding.problem
    nowhere = not lines and (problem.line, problem.column) == (1, 1)  # in a file that could not be read
    place = "" if nowhere else f":{problem.line}:{problem.column}"
    text = Text.assemble(
        (f"{printable(problem.file)}{place}", "bold"),
        ": ",
        (finding.severity, _STYLE[finding.severity]),
        f": {printable(finding.words)}",
        (f" [{finding.code}]" if finding.code else "", "dim"),
    )
    found = excerpt(lines, problem.line, problem.column, width)
    if found is not None:
        number = str(problem.line)
        gutter = " " * len(number)
        text.append(f"\n  {number} │ ", "blue").append(found.text)
        text.append(f"\n  {gutter} │ ", "blue").append(" " * found.indent)
        text.append("^" * found.length, _STYLE[finding.severity])
    return text.append("\n")


def annotation(finding: Finding) -> str:
    """One command of GitHub's workflows, which marks the line in a pull request."""
    problem = finding.problem
    title = f",title={_property(finding.code)}" if finding.code else ""
    place = f"file={_property(problem.file)},line={problem.line},col={problem.column}{title}"
    return f"::{finding.severity} {place}::{_data(finding.words)}"


def _data(text: str) -> str:
    """Line ends have an escape there; whatever else cannot be seen is written out."""
    escaped = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return printable(escaped)


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
