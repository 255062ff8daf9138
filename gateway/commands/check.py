"""moe-gateway check."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.commands.shared import DEFAULT_CONFIG, Json, State, read_config, state_folder, warn
from gateway.console import out, print_json
from router.errors import ConfigError
from router.experts import ExpertsFile

if TYPE_CHECKING:
    from rich.text import Text

    from gateway.inspection import Inspected


def check(
    file: Annotated[Path, typer.Argument(help="The experts file.")] = DEFAULT_CONFIG,
    live: Annotated[bool, typer.Option("--live", help="Ask every upstream whether it is as the file says.")] = False,
    ask: Annotated[bool, typer.Option("--ask", help="With --live: have each replica generate one token too.")] = False,
    timeout: Annotated[float, typer.Option(help="With --live: seconds for each question.", min=0.1, max=600)] = 5.0,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Say everything that is wrong with an experts file, each with its line; with --live, with its upstreams too.

    Example: moe-gateway check experts.yaml --live
    """
    if ask and not live:
        raise typer.BadParameter("goes with --live", param_hint="--ask")
    try:
        experts = read_config(file)
    except ConfigError as error:
        if not as_json:
            raise
        print_json({"ok": False, "problems": [{n: getattr(p, n) for n in p.__slots__} for p in error.problems]})
        raise typer.Exit(1) from None
    inspected = _inspected(experts, state_folder(file, state), timeout, ask) if live else None
    if as_json:
        print_json(_described(experts, inspected))
    else:
        warn(experts)
        _say_fine(file, experts)
        if inspected is not None:
            _show(inspected)
    if any(replica.problems for replica in inspected or ()):
        raise typer.Exit(1)


def _inspected(file: ExpertsFile, state: Path, seconds: float, ask: bool) -> list[Inspected]:
    from gateway.inspection import inspect

    logging.getLogger("moe_gateway").setLevel(logging.CRITICAL)  # what it has to say stands in the table
    return asyncio.run(inspect(file, state, seconds, ask))


def _described(file: ExpertsFile, inspected: Sequence[Inspected] | None) -> dict[str, Any]:
    from gateway.costs import cost_warnings

    described: dict[str, Any] = {
        "ok": not any(replica.problems for replica in inspected or ()),
        "experts": list(file.experts),
        "domains": file.domain_names,
        "hash": file.digest,
        "warnings": list(cost_warnings(file)),
    }
    if inspected is not None:
        described["live"] = [{n: getattr(replica, n) for n in replica.__struct_fields__} for replica in inspected]
    return described


def _say_fine(path: Path, file: ExpertsFile) -> None:
    stand_ins = sum(expert.stand_in for expert in file.experts.values())
    note = f", of which {stand_ins} are stand-ins" if stand_ins else ""
    out.print(
        f"{path}: fine: {len(file.experts)} experts{note}, domains {', '.join(file.domain_names)}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _show(inspected: Sequence[Inspected]) -> None:
    """A row for each replica, and how many are not as the file says."""
    from rich.table import Table
    from rich.text import Text

    table = Table("replica", "reached", "model", "context", "is as the file says", box=None, pad_edge=False)
    for replica in inspected:
        said = [Text(text, "red") for text in replica.problems] + [Text(text, "dim") for text in replica.notes]
        if not replica.problems:
            said.insert(0, _verdict(replica))
        table.add_row(
            Text(replica.replica),
            "–" if replica.milliseconds is None else f"{replica.milliseconds:.0f} ms",
            Text(replica.model, "red" if replica.served is False and replica.problems else ""),
            _context(replica),
            Text("\n").join(said),
        )
    out.print(table, highlight=False)
    wrong = sum(bool(replica.problems) for replica in inspected)
    summary = f"{wrong} of {len(inspected)} replicas are not as the file says" if wrong else "all are as the file says"
    out.print(summary, style="red" if wrong else "green", highlight=False)


def _verdict(replica: Inspected) -> Text:
    from rich.text import Text

    if replica.served is None:
        return Text("as far as can be told", "dim")
    return Text("yes", "green") if replica.served else Text("not yet", "yellow")


def _context(replica: Inspected) -> str:
    """Tokens: the file's of the server's."""
    known = [str(tokens) for tokens in (replica.context_in_file, replica.context) if tokens is not None]
    return " of ".join(known) or "–"
