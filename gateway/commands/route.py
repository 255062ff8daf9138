"""moe-gateway route."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO, TextIO

import typer
from rich.table import Table

from gateway.commands.shared import DEFAULT_CONFIG, Config, Json, State, provisioned
from gateway.console import err, fail, out, print_json


def route(
    text: Annotated[str | None, typer.Argument(help="A prompt.")] = None,
    config: Config = DEFAULT_CONFIG,
    state: State = None,
    model: Annotated[str, typer.Option(help="A virtual model: auto, auto:cheap or auto:best.")] = "auto",
    input: Annotated[
        str | None, typer.Option(help="A file of JSON lines with id and prompt or messages; - is stdin.")
    ] = None,
    output: Annotated[str, typer.Option(help="Where the decisions go; - is stdout.")] = "-",
    as_json: Json = False,
) -> None:
    """Say which expert would answer a prompt, or every prompt of a file, and why.

    Example: moe-gateway route "Why is the sky blue?"
    Example: moe-gateway route --input prompts.jsonl --output decisions.jsonl
    """
    from gateway.batch import route_lines
    from gateway.requests.routed import text_query
    from router.policy import POLICIES

    if (text is None) == (input is None):
        raise typer.BadParameter("give a prompt, or --input FILE")
    if model not in POLICIES:
        raise typer.BadParameter(f"one of {', '.join(POLICIES)}", param_hint="--model")
    router = provisioned(config, state)
    if text is not None:
        decision = router.decide(text_query(text, model))
        print_json(decision.described()) if as_json else _print_decision(decision.described())
        return
    with opened_batch(input or "-", output) as (lines, answers):
        failed = route_lines(router, lines, answers, model)
    if failed:
        err.print(f"{failed} lines could not be routed; each has its error in the output", style="yellow")


@contextmanager
def opened_batch(source: str, target: str) -> Iterator[tuple[BinaryIO, TextIO]]:
    """The files to read from and to write to, or the standard streams where they are -."""
    both = "-" not in (source, target) and Path(source).exists() and Path(target).exists()
    if both and Path(source).samefile(target):
        fail(f"{source} is input and output; what is not read yet would be lost")
    with ExitStack() as stack:
        try:
            lines = sys.stdin.buffer if source == "-" else stack.enter_context(Path(source).open("rb"))
            answers = sys.stdout if target == "-" else stack.enter_context(Path(target).open("w", encoding="utf-8"))
        except OSError as error:
            fail(f"{error.filename}: {error.strerror}")
        yield lines, answers


def _print_decision(decision: dict[str, Any]) -> None:
    out.print(
        f"[b]{decision['expert']}[/b]  reason {decision['reason']}, {decision['latency_ms']:.1f} ms", highlight=False
    )
    table = Table("domain", "probability", box=None)
    for domain, probability in sorted(decision["probabilities"].items(), key=lambda item: -item[1]):
        table.add_row(domain, f"{probability:.3f} {'█' * round(20 * probability)}")
    out.print(table)
