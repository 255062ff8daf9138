"""moe-gateway workers: up, status, down, logs."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.commands.shared import DEFAULT_CONFIG, Config, Json, State, read_config, state_folder
from gateway.console import fail, out, print_json
from gateway.settings import LogFormat, LogLevel
from gateway.workers.protocol import Board, Crew, Down, Row, WorkerState

app = typer.Typer(no_args_is_help=True, help="The vLLM workers that experts.yaml launches.", rich_markup_mode=None)

NOBODY = "no workers are up here; start them with: moe-gateway workers up (or moe-gateway serve --with-workers)"
FOLLOW_SECONDS = 0.5
WIDE = 200  # columns of a table that goes into a file
STOP_SECONDS = 120.0
Level = Annotated[LogLevel, typer.Option("--log-level", envvar="MOE_GATEWAY_LOG_LEVEL", hidden=True)]
Format = Annotated[LogFormat, typer.Option("--log-format", envvar="MOE_GATEWAY_LOG_FORMAT", hidden=True)]
WithParent = Annotated[bool, typer.Option("--with-parent", hidden=True, help="End where standard input ends.")]


@app.command()
def up(
    config: Config = DEFAULT_CONFIG,
    state: State = None,
    with_parent: WithParent = False,
    log_level: Level = LogLevel.INFO,
    log_format: Format = LogFormat.AUTO,
) -> None:
    """Start the workers, and keep them up until Ctrl-C or SIGTERM; a second one does not wait for what they run.

    A worker that fails is tried again with growing pauses. Where none becomes ready the command ends with 1. SIGHUP reads
    experts.yaml again.

    Example: moe-gateway workers up --config experts.yaml
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it can follow
    from gateway.workers.child import OWNED
    from gateway.workers.launching import Place, find_vllm, plans, threads_each
    from gateway.workers.owner import OwnedError, owned

    file, folder = read_config(config), state_folder(config, state).resolve()
    planned = plans(file)
    if not planned and not with_parent:
        fail(f"{config} launches no workers: an expert with upstream: {{launch: {{…}}}} has some")
    place = Place(find_vllm(config), config.absolute().parent, folder, threads_each(len(planned)), os.environ)
    try:
        with owned(folder):
            if with_parent:
                from gateway import logs

                logs.configure(log_level, log_format, "workers")
                asyncio.run(_kept(config, file, place))
            else:
                sys.exit(asyncio.run(_shown(config, file, place)))
    except OwnedError as error:
        if with_parent:
            sys.exit(OWNED)
        fail(str(error))


async def _kept(config: Path, file: Any, place: Any) -> None:
    """As the gateway's child: until its standard input ends."""
    from gateway.workers.owner import Owner
    from gateway.workers.remains import adopting

    owner = Owner(config, file, place, clear=adopting())
    _on_signals(owner)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        await owner.start()
        await _first(reader.read(), owner.until_down())
    finally:
        await owner.stop()


async def _shown(config: Path, file: Any, place: Any) -> int:
    """In the foreground. The exit status."""
    from gateway.commands.crewscreen import CrewScreen, SaysOnScreen, say
    from gateway.workers.launching import plans
    from gateway.workers.owner import Owner
    from gateway.workers.remains import adopting

    log = logging.getLogger("moe_gateway")
    log.addHandler(SaysOnScreen(logging.WARNING))
    log.propagate = False
    screen, began = CrewScreen(plans(file), place.state), time.monotonic()
    came_up: set[str] = set()  # some may sleep again before the last one is settled

    def show(told: Crew) -> None:
        came_up.update(facts.name for facts in told.workers if facts.state is WorkerState.READY)
        screen.show(told)

    owner = Owner(config, file, place, show, adopting())
    _on_signals(owner)
    try:
        with screen.live():
            await owner.start()
            await _first(owner.crew.settled(), owner.until_down())
        show(told := owner.crew.told())
        ready = len(came_up)
        if not ready and not owner.ending:
            say("error: no worker became ready", "red")
            return 1
        if ready:
            say(
                f"{ready} of {len(told.workers)} workers ready in {time.monotonic() - began:.1f} s; Ctrl-C stops them",
                "bold",
            )
        await owner.until_down()
    finally:
        await owner.stop()
        say("the workers are stopped")
    return 0


async def _first(*works: Coroutine[Any, Any, Any]) -> None:
    """Until one of them is done. Raises what that one raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for task in done:
        task.result()


def _on_signals(owner: Any) -> None:
    """The first asks for the end, those after it do not wait."""
    loop = asyncio.get_running_loop()
    asked = False

    def on_signal() -> None:
        nonlocal asked
        if asked:
            owner.crew.hurry()
        asked = True
        owner.down()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    loop.add_signal_handler(signal.SIGHUP, owner.reread)


@app.command()
def status(config: Config = DEFAULT_CONFIG, state: State = None, as_json: Json = False) -> None:
    """Say how the workers do. The exit status is 1 where none is up, or one of them failed.

    Example: moe-gateway workers status --json
    """
    board = _board(state_folder(config, state).resolve())
    if board is None:
        if as_json:
            print_json({"owner": None, "workers": []})
            raise typer.Exit(1)
        fail(NOBODY)
    if as_json:
        print_json({"owner": {"pid": board.pid, "config": board.config}, "workers": [_as_json(r) for r in board.rows]})
    else:
        _show(board)
    if not board.rows or any(row.facts.failing for row in board.rows):
        raise typer.Exit(1)


@app.command()
def down(config: Config = DEFAULT_CONFIG, state: State = None) -> None:
    """Stop the workers and wait until they are gone.

    Example: moe-gateway workers down
    """
    from gateway.workers.reaching import reached

    with reached(state_folder(config, state).resolve()) as owner:
        if owner is None:
            out.print("no workers are up here", highlight=False)
            return
        began, last = time.monotonic(), None
        owner.say(Down())
        try:
            while (told := owner.hear(STOP_SECONDS)) is not None:
                last = told if isinstance(told, Crew) else last
        except TimeoutError:
            fail(f"the workers are not stopped after {STOP_SECONDS:.0f} s; their owner is process {owner.pid}")
    count = len(last.workers) if last else 0
    out.print(f"stopped {count} workers in {time.monotonic() - began:.1f} s", highlight=False)


@app.command()
def logs(
    name: Annotated[str, typer.Argument(help="A worker, such as coder-0.")],
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="How many of the last lines.")] = 50,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with what is written.")] = False,
    config: Config = DEFAULT_CONFIG,
    state: State = None,
) -> None:
    """Print the end of a worker's log.

    Example: moe-gateway workers logs coder-0 -f
    """
    from gateway.workers import logfiles

    folder = state_folder(config, state) / "logs"
    path = folder / f"{name}.log"
    if path.parent != folder or not path.is_file():
        known = ", ".join(sorted(found.stem for found in folder.glob("*.log"))) or "none"
        fail(f"there is no log of {name}; there are: {known}")
    for line in logfiles.tail(path, lines) if lines else ():
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
    at = path.stat().st_size
    while follow:
        time.sleep(FOLLOW_SECONDS)
        size = path.stat().st_size
        if size != at:
            sys.stdout.write(logfiles.text(path, at if size > at else 0) + "\n")
            sys.stdout.flush()
            at = size


def _board(state: Path) -> Board | None:
    from gateway.workers.reaching import reached

    with reached(state) as owner:
        try:
            return owner.board() if owner is not None else None
        except TimeoutError:
            fail(
                f"the owner of the workers, process {owner.pid if owner else 0}, does not answer; kill -9 it and start it anew"
            )
        except OSError:  # it left just now
            return None


def _show(board: Board) -> None:
    screen = out if out.is_terminal else Console(width=WIDE)
    shown = table(board)
    fits = screen.measure(shown, options=screen.options.update(max_width=WIDE * 10)).maximum <= screen.width
    screen.print(shown if fits else table(board, models=False), highlight=False)
    models = {} if fits else {row.facts.expert: row.model for row in board.rows}
    notes = [*models.items(), *((row.facts.name, row.facts.why) for row in board.rows if row.facts.why)]
    for name, note in notes:
        out.print(f"{name}: {note}", highlight=False, markup=False, soft_wrap=True)


def table(board: Board, models: bool = True) -> Table:
    from gateway.commands.crewscreen import styled

    shown = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0) if not models else (0, 2, 0, 0))
    for name in ("worker", "state", "since", "pid", "where"):
        shown.add_column(name, no_wrap=True)
    for name in ("memory", "run", "wait", "tok/s", "restarts"):
        shown.add_column(name, justify="right", no_wrap=True)
    if models:
        shown.add_column("model", no_wrap=True)
    for row in board.rows:
        facts, up = row.facts, row.facts.state is WorkerState.READY
        figures = (str(row.running), str(row.waiting), f"{row.tokens_per_second:.1f}") if up else ("–", "–", "–")
        shown.add_row(
            facts.name, styled(facts.state), _ago(time.time() - facts.since), str(facts.pid or "–"), row.place,
            "–" if row.memory is None else f"{row.memory / 1024**3:.1f} GiB", *figures, str(facts.restarts),
            *([escape(row.model)] if models else []),
        )  # fmt: skip
    return shown


def _as_json(row: Row) -> dict[str, Any]:
    facts = row.facts
    return {
        "name": facts.name, "expert": facts.expert, "state": str(facts.state), "since": facts.since, "pid": facts.pid,
        "ready": facts.state is WorkerState.READY, "model": row.model, "where": row.place, "memory_bytes": row.memory,
        "running": row.running, "waiting": row.waiting, "tokens_per_second": round(row.tokens_per_second, 2),
        "restarts": facts.restarts, "wakes": facts.wakes, "wake_seconds": facts.wake_seconds,
        "asleep_seconds": facts.asleep_seconds, "why": facts.why, "log": row.log,
    }  # fmt: skip


def _ago(seconds: float) -> str:
    """A length of time in its two largest units."""
    whole = max(0, int(seconds))
    for size, unit, smaller, other in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller} {other}"
    return f"{whole} s"
