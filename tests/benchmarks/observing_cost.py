"""What watching costs: a gateway with nothing observed, then with metrics, log lines, the ledger and traces, one by one.

make bench-observing [BENCH='--rounds 3 --write']
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from tests.benchmarks.serving.bodies import KINDS, Bodies, prompts
from tests.benchmarks.serving.load import NoLoadError, wrk
from tests.benchmarks.serving.measuring import Plan, Run, Sample, of, run
from tests.benchmarks.serving.processes import NotUpError, Server, free_port, serving
from tests.benchmarks.serving.ways import EXPERT, HERE, ROOT, BadAnswerError, Way, experts_json, mock

DOCUMENT = ROOT / "docs" / "observing-cost.md"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
WIDE = 150


@dataclass(frozen=True)
class Watched:
    """A gateway that is watched so far. `off` is what is switched off in the process itself, which has no flag for it."""

    name: str
    title: str
    off: str = ""
    arguments: tuple[str, ...] = ()
    traced: bool = False


QUIET, NO_LEDGER = ("--log-level", "error"), ("--ledger", "none")
STEPS = (
    Watched("nothing", "nothing is observed", "metrics", (*QUIET, *NO_LEDGER)),
    Watched("metrics", "metrics", arguments=(*QUIET, *NO_LEDGER)),
    Watched("logs", "metrics, log lines", arguments=NO_LEDGER),
    Watched("ledger", "metrics, log lines, ledger (as shipped)"),
    Watched("traces", "metrics, log lines, ledger, traces", traced=True),
)


class _Sink(BaseHTTPRequestHandler):
    """Takes what is exported and forgets it."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def sink() -> Iterator[str]:
    """Where traces go."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Sink) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def opened(steps: Sequence[Watched], folder: Path) -> Iterator[list[Way]]:
    """A gateway for each step, all over one mock upstream. Raises NotUpError."""
    with ExitStack() as held:
        upstream, receiver = held.enter_context(mock(folder)), held.enter_context(sink())
        yield [
            Way(step.name, EXPERT, held.enter_context(_gateway(step, upstream, receiver, folder / step.name)))
            for step in steps
        ]


@contextmanager
def _gateway(step: Watched, upstream: Server, receiver: str, folder: Path) -> Iterator[Server]:
    folder.mkdir()
    config, port = folder / "experts.yaml", free_port()
    config.write_text(experts_json(upstream.url), "utf-8")
    module = "tests.benchmarks.unobserved" if step.off else "gateway.cli"
    command = [sys.executable, "-m", module, "serve", "--config", str(config), "--port", str(port)]
    command += ["--state", str(folder / "state"), *step.arguments]
    environment = {**HERE, **({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver} if step.traced else {})}
    with serving(command, port, "/ready", folder / "gateway.log", environment=environment) as server:
        yield server


def ratios(made: Run, kind: str, clients: int, figure: str) -> Mapping[str, float]:
    """Of each step to the one before it, within a round: the median. More than 1 is dearer."""
    found = {}
    names = list(dict.fromkeys(sample.way for sample in made.samples))
    for before, after in pairwise(names):
        both = zip(of(made.samples, before, kind, clients), of(made.samples, after, kind, clients), strict=True)
        found[after] = median(getattr(b, figure) / max(getattr(a, figure), 1e-9) for a, b in both)
    return found


def rows(made: Run) -> Iterator[list[str]]:
    """A row for each step and load: its medians, and what it adds to the step before it."""
    cells = dict.fromkeys((sample.kind, sample.clients) for sample in made.samples)
    for kind, clients in cells:
        cpu, rate, p50 = (ratios(made, kind, clients, figure) for figure in ("cpu", "rate", "p50"))
        for step in STEPS:
            own = list(of(made.samples, step.name, kind, clients))
            if own:
                yield [
                    f"{kind}, {clients} client{'s' if clients > 1 else ''}",
                    step.title,
                    f"{_median(own, 'rate'):.0f}",
                    f"{_median(own, 'p50') * 1000:.2f}",
                    f"{_median(own, 'p99') * 1000:.1f}",
                    f"{_median(own, 'cpu') * 1e6:.0f}",
                    *(f"{found[step.name]:.2f}" if step.name in found else "" for found in (cpu, rate, p50)),
                ]


def _median(samples: Sequence[Sample], figure: str) -> float:
    return float(median(getattr(sample, figure) for sample in samples))


HEAD = ("load", "observed", "requests/s", "p50 ms", "p99 ms", "CPU µs/request", "CPU ratio", "rate ratio", "p50 ratio")


def markdown(made: Run) -> str:
    lines = [HEAD, ["---", "---", *["--:"] * (len(HEAD) - 2)], *rows(made)]
    others = median(sample.others for sample in made.samples)
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    first = made.samples[0]
    count = len(list(of(made.samples, first.way, first.kind, first.clients)))
    return f"{table}\n\nMedians of {count} rounds; others used {others:.0%} of the machine's CPU time.\n"


def inserted(document: str, figures: str) -> str:
    """`document` with the figures between its marks. Raises ValueError where it has none."""
    if not re.search(f"{BEGIN}.*{END}", document, re.DOTALL):
        raise ValueError("the document has no place for figures")
    return re.sub(f"({BEGIN}\n).*({END})", lambda m: f"{m[1]}{figures}{m[2]}", document, flags=re.DOTALL)


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-observing", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--clients", type=lambda said: [int(one) for one in said.split(",")], default=[1, 16])
    parser.add_argument("--write", action="store_true", help=f"write the table into {DOCUMENT.name}")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    args, out = parsed(arguments), Console(width=max(WIDE, Console().width))
    try:
        wrk()
        with tempfile.TemporaryDirectory(prefix="observing-") as folder:
            bodies = Bodies(Path(folder), prompts(None, True))
            plan = Plan(list(KINDS), args.clients, args.rounds, args.seconds)
            with opened(STEPS, Path(folder)) as ways:
                made = run(ways, plan, bodies, lambda line: out.print(line, style="dim"))
    except (NoLoadError, NotUpError, BadAnswerError) as error:
        sys.exit(f"error: {error}")
    table = Table(*HEAD, box=None)
    for row in rows(made):
        table.add_row(*row)
    out.print(table)
    if args.write:
        DOCUMENT.write_text(inserted(DOCUMENT.read_text("utf-8"), markdown(made)), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
