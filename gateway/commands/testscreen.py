"""The results of routing tests on a terminal. Prompts and names are made visible and printed as text, never as markup."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gateway.console import out
from router.decision import Candidate, Decision
from router.explaining.explanation import line_of
from router.routetests import Result

MOST_DOMAINS = 4
MOST_EXPERTS = 4


def print_results(name: str, results: Sequence[Result], seconds: float, verbose: bool) -> None:
    """Those that failed, with why; with `verbose` a line for each that passed; and a line for all of them."""
    out.print(Group(*rendered(name, results, seconds, verbose)), highlight=False)


def rendered(name: str, results: Sequence[Result], seconds: float, verbose: bool) -> Iterator[RenderableType]:
    """The lines and tables, from top to bottom; `name` is the file's."""
    if verbose and any(result.passed for result in results):
        yield _passed([result for result in results if result.passed])
        yield Text()
    for result in results:
        if not result.passed:
            yield from _failed(name, result)
            yield Text()
    yield _summary(results, seconds)


def _passed(results: Sequence[Result]) -> Table:
    table = Table.grid(padding=(0, 2))
    for column in ("left", "left", "right", "left"):
        table.add_column(justify="right" if column == "right" else "left", no_wrap=True)
    for result in results:
        decision = result.decision
        scores = decision.scores if decision else None
        table.add_row(
            Text("ok", "green"),
            Text(decision.expert if decision else ""),
            Text(f"{scores.confidence:.3f}" if scores else "", "dim"),
            Text(line_of(result.name), overflow="ellipsis"),
        )
    return table


def _failed(name: str, result: Result) -> Iterator[RenderableType]:
    yield Text.assemble(
        ("FAILED ", "bold red"), (f"{name}:{result.test.line}  ", "dim"), (line_of(result.name), "bold")
    )
    query, decision = result.test.query, result.decision
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column()
    turns = f" (turn {len(query.earlier) + 1} of the conversation)" if query.earlier else ""
    facts.add_row("prompt", Text.assemble(line_of(query.text), (turns, "dim")))
    facts.add_row("wrong", Text("\n".join(line_of(wrong) for wrong in result.wrong), "red"))
    if decision is not None:
        facts.add_row("why", Text(_why(decision)))
        if decision.scores:
            facts.add_row("domains", Text(_domains(decision)))
        facts.add_row("quality", Text("\n".join(_experts(decision.candidates))))
    yield Padding(facts, (0, 0, 0, 2))


def _why(decision: Decision) -> str:
    """Who was chosen, the reason, and what was kept to."""
    parts = [f"{decision.expert}, reason {decision.reason}"]
    if decision.rules is not None:
        low = decision.reason == "low_confidence"
        parts.append(f"below the floor of {decision.rules.floor:g}" if low else f"policy {decision.rules.policy}")
    if decision.scores is not None:
        parts.append(f"{decision.scores.stage} stage")
    return ", ".join(parts)


def _domains(decision: Decision) -> str:
    by_domain = decision.scores.by_domain if decision.scores else {}
    ordered = sorted(by_domain.items(), key=lambda item: -item[1])
    return ", ".join(f"{domain} {p:.3f}" for domain, p in ordered[:MOST_DOMAINS])


def _experts(candidates: Sequence[Candidate]) -> Iterator[str]:
    """The best by the quality that is expected of them in one line, and a line for each that was refused."""
    able = sorted(
        ((c.expected_quality, c.expert) for c in candidates if c.expected_quality is not None),
        key=lambda item: -item[0],
    )
    if able:
        yield ", ".join(f"{expert} {quality:.3f}" for quality, expert in able[:MOST_EXPERTS])
    yield from (f"{c.expert} refused: {c.refused}" for c in candidates if c.refused is not None)


def _summary(results: Sequence[Result], seconds: float) -> Text:
    failed = sum(not result.passed for result in results)
    passed = len(results) - failed
    said = f"{passed} passed" + (f", {failed} failed" if failed else "") + f" in {seconds:.2f} s"
    return Text(said, "bold red" if failed else "bold green")
