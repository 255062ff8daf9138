"""How fast requests are carried: straight to a mock upstream, through the gateway, through others, in one run.

make bench [BENCH='--rounds 3 --ways straight,pass-through --json figures.json']
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from tests.benchmarks.serving import report
from tests.benchmarks.serving.bodies import KINDS, Bodies, prompts
from tests.benchmarks.serving.load import NoLoadError, wrk
from tests.benchmarks.serving.measuring import Plan, run
from tests.benchmarks.serving.processes import NotUpError
from tests.benchmarks.serving.results import Results, results
from tests.benchmarks.serving.ways import ROOT, WAYS, BadAnswerError, open_ways

WIDE = 190  # what a row of the table takes
DOCUMENT, PICTURE = ROOT / "docs" / "serving-speed.md", ROOT / "docs" / "serving-speed.svg"


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--ways", type=_some_of(WAYS), default=list(WAYS), help=f"of {', '.join(WAYS)}")
    parser.add_argument("--kinds", type=_some_of(KINDS), default=list(KINDS), help=f"of {', '.join(KINDS)}")
    parser.add_argument("--clients", type=_numbers, default=[1, 32], help="how many ask at once: 1,32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of load, for each way, kind and number of clients")
    parser.add_argument("--prompts", type=int, help="ask so many different ones; so few may be remembered")
    parser.add_argument(
        "--english", action="store_true", help="ask in English alone: the static stage knows no other language"
    )
    parser.add_argument("--json", type=Path, help="write every figure into this file")
    parser.add_argument(
        "--write", action="store_true", help="write the figures into docs/serving-speed.md, with its picture"
    )
    return parser.parse_args(arguments)


def _some_of(known: Sequence[str]) -> Callable[[str], list[str]]:
    def read(said: str) -> list[str]:
        names = said.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
        return names

    return read


def _numbers(said: str) -> list[int]:
    numbers = [int(number) for number in said.split(",")]
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError("clients are counted from 1 on")
    return numbers


def main(arguments: Sequence[str]) -> None:
    args, out = parsed(arguments), Console(width=max(WIDE, Console().width))
    try:
        wrk()
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            bodies = Bodies(Path(folder), prompts(args.prompts, args.english))
            plan = Plan(args.kinds, args.clients, args.rounds, args.seconds)
            with open_ways(args.ways, Path(folder)) as ways:
                made = run(ways, plan, bodies, lambda line: out.print(line, style="dim"))
    except (NoLoadError, NotUpError, BadAnswerError) as error:
        sys.exit(f"error: {error}")
    found = results(made)
    for part in report.terminal(found):
        out.print(part, highlight=False)
    if args.json:
        args.json.write_text(json.dumps({"machine": machine(), **found.plain()}, indent=1) + "\n", "utf-8")
    if args.write:
        write(found, max(args.clients))


def write(found: Results, clients: int) -> None:
    """Put the figures and their picture where they are read."""
    figures = f"Measured on {machine()}.\n\n{report.markdown(found)}"
    DOCUMENT.write_text(report.inserted(DOCUMENT.read_text("utf-8"), figures), "utf-8")
    PICTURE.write_text(report.picture(found, clients), "utf-8")


def machine() -> str:
    """What it was measured on."""
    python = platform.python_version()
    what = f"{os.cpu_count()} cores ({platform.machine()}, {platform.system()})"
    return f"{what} that load, servers and upstream share, with Python {python}"


if __name__ == "__main__":
    main(sys.argv[1:])
