"""moe-gateway usage."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gateway.commands.shared import DEFAULT_CONFIG, Config, Json, State, state_folder
from gateway.console import fail, out, print_json

WIDE = 200  # columns of a table that goes into a file
CALLED_WRONGLY = 2


def usage(
    by: Annotated[
        str,
        typer.Option(
            "--by",
            help="expert, model, domain, key, day, hour, month, endpoint, status, outcome, reason; commas between.",
        ),
    ] = "expert",
    since: Annotated[
        str, typer.Option("--since", help="7d, 24h or 30m ago, 2026-11-30, 2026-11-30T12:00, or all.")
    ] = "7d",
    until: Annotated[str, typer.Option("--until", help="In the same words.")] = "now",
    tz: Annotated[str, typer.Option("--tz", help="Time zone of days and hours, such as Europe/Berlin.")] = "UTC",
    expert: Annotated[list[str] | None, typer.Option("--expert", help="These alone.")] = None,
    key: Annotated[list[str] | None, typer.Option("--key", help="The requests of these keys alone, by name.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, every figure unrounded.")] = False,
    as_json: Json = False,
    ledger: Annotated[
        str | None,
        typer.Option(
            "--ledger",
            envvar="MOE_GATEWAY_LEDGER",
            help="The ledger's URL, as serve has it.",
            show_default="ledger.db in the state folder",
        ),
    ] = None,
    config: Config = DEFAULT_CONFIG,
    state: State = None,
) -> None:
    """Say from the ledger who used what and what it cost: requests, errors, tokens, cost, savings, times.

    Only reads, while a gateway writes. Totals stay when rows become too old to keep: their models, endpoints and hours are then
    "(rolled up)".

    Example: moe-gateway usage --by expert,key,day --since 7d --csv
    """
    from gateway.ledger import urls
    from gateway.ledger.asked import AskedError, read_asked
    from gateway.ledger.errors import LedgerUrlError

    if as_csv and as_json:
        fail("--csv and --json exclude each other", CALLED_WRONGLY)
    try:
        asked = read_asked({"by": by, "since": since, "until": until, "tz": tz}, expert or (), key or ())
        url = ledger_url(ledger, config, state)
        urls.check(url)
    except AskedError as error:
        fail(str(error), CALLED_WRONGLY)
    except LedgerUrlError as error:
        fail(str(error), CALLED_WRONGLY)
    from gateway.ledger.reader import Reader, UnreadableError

    reader = Reader(url)
    try:
        report = reader.usage(asked)
    except UnreadableError as error:
        fail(f"{error} {error.told}".rstrip())
    finally:
        reader.close()
    if as_csv:
        sys.stdout.write(report.csv())
    elif as_json:
        print_json(report.described())
    else:
        from gateway.commands.usagescreen import screen

        console = out if out.is_terminal else Console(width=WIDE)
        console.print(screen(report, console), highlight=False)


def ledger_url(said: str | None, config: Path, state: Path | None) -> str:
    """Where the ledger is; `said` is what --ledger says. Leaves with status 1 where there is none."""
    from gateway.ledger import urls

    if said == "none":
        fail("there is no ledger: --ledger, or MOE_GATEWAY_LEDGER, says none")
    url = said or urls.in_file(state_folder(config, state) / "ledger.db")
    path = urls.file_of(url)
    if path is not None and not path.exists():
        fail(
            f"there is no ledger at {path}: a gateway that serves writes one; name it with --ledger, --config or --state"
        )
    return url
