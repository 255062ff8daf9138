"""What people see of workers that start and stop: a table that moves on a terminal, else a line for each change."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from gateway.console import err
from gateway.workers import logfiles
from gateway.workers.launching import Plan
from gateway.workers.protocol import Crew, WorkerFacts, WorkerState

STYLES = {
    WorkerState.STARTING: "yellow",
    WorkerState.WAKING: "yellow",
    WorkerState.READY: "green",
    WorkerState.STOPPING: "yellow",
    WorkerState.ASLEEP: "cyan",
    WorkerState.FAILED: "red",
}
TAIL_LINES = 12
REFRESH_PER_SECOND = 4


class CrewScreen:
    """Shows what `show` is told. `state` is the folder with the logs."""

    def __init__(self, planned: Mapping[str, Plan], state: Path) -> None:
        self._planned, self._state = planned, state
        self._began = time.time()
        self._known: dict[str, WorkerFacts] = {}
        self._launched: dict[str, float] = {}  # since when each is on its way
        self._quoted: dict[str, str] = {}  # the failures whose log was shown

    def show(self, crew: Crew) -> None:
        for facts in crew.workers:
            before = self._known.get(facts.name)
            if before is None or before.state is not facts.state:
                self._tell(facts, before)
        for name in self._known.keys() - {facts.name for facts in crew.workers}:
            say(f"{name}: is no longer in the file", "dim")
        self._known = {facts.name: facts for facts in crew.workers}

    @contextmanager
    def live(self) -> Iterator[None]:
        """The table, on a terminal, for as long as this lasts."""
        if not err.is_terminal:
            yield
            return
        from rich.live import Live

        with Live(get_renderable=self._table, console=err, transient=True, refresh_per_second=REFRESH_PER_SECOND):
            yield

    def _tell(self, facts: WorkerFacts, before: WorkerFacts | None) -> None:
        seconds = time.time() - self._launched.get(facts.name, self._began)
        match facts.state:
            case WorkerState.STARTING | WorkerState.WAKING:
                self._launched[facts.name] = facts.since
                plan = self._planned.get(facts.name)
                say(f"{facts.name}: {facts.state} {plan.model if plan else ''}", "dim")
            case WorkerState.READY:
                say(f"{facts.name}: ready after {seconds:.1f} s", "green")
            case WorkerState.FAILED:
                died = before is not None and before.state is WorkerState.READY
                say(f"{facts.name}: {'died' if died else f'failed after {seconds:.1f} s'}: {facts.why}", "red")
                if facts.why != self._quoted.get(facts.name):
                    self._quote(facts.name)
                self._quoted[facts.name] = facts.why
            case WorkerState.STOPPING:
                say(f"{facts.name}: stopping", "dim")
            case WorkerState.ASLEEP:
                say(f"{facts.name}: asleep", "cyan")

    def _quote(self, name: str) -> None:
        log = self._state / "logs" / f"{name}.log"
        lines = logfiles.last_start(log, TAIL_LINES)
        if lines:
            say(f"  the last lines of {log}:", "dim")
        for line in lines:
            say(f"  │ {line}", "dim")

    def _table(self) -> Table:
        table = Table("worker", "model", "where", "state", "seconds", box=None, pad_edge=False)
        for name, facts in self._known.items():
            plan = self._planned.get(name)
            where = f"GPU {','.join(map(str, plan.gpus))}" if plan and plan.gpus else ""
            table.add_row(
                name, escape(plan.model) if plan else "", where, styled(facts.state), f"{time.time() - facts.since:.0f}"
            )
        return table


class SaysOnScreen(logging.Handler):
    """Warnings and errors as lines for people, but for those that CrewScreen tells better."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage() in ("worker died", "worker did not start"):
            return
        extra = {key: value for key, value in vars(record).items() if key in ("worker", "why", "processes")}
        more = "".join(f", {key}: {value}" for key, value in extra.items())
        say(f"{record.levelname.lower()}: {record.getMessage()}{more}", "yellow")


def styled(state: WorkerState) -> str:
    return f"[{STYLES[state]}]{state}[/]"


def say(text: str, style: str = "") -> None:
    err.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
