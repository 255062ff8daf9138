"""moe-gateway init."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from gateway.commands.shared import DEFAULT_CONFIG, Json, State, state_folder
from gateway.console import err, fail, out, print_json

SCHEMA = "experts.schema.json"  # where the file's first line has it
INITIAL = Path(__file__).with_name("initial.yaml")  # the experts.yaml of the repository, which a wheel has not


def init(
    file: Annotated[Path, typer.Argument(help="Where to write it.")] = DEFAULT_CONFIG,
    force: Annotated[
        bool, typer.Option("--force", help="Also over a file, which goes into the history first.")
    ] = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Write an experts.yaml to begin with, every part of it explained, and its schema for editors beside it.

    It serves at once: its experts are stand-ins, each with a real specialist beside it that waits to be uncommented.

    Example: moe-gateway init experts.yaml
    """
    from gateway.replacing import replace_files
    from gateway.workers import embedded
    from router.schema import experts_schema

    if file.exists() or file.is_symlink():
        if not force:
            fail(f"{file} is there already; --force writes over it")
        _keep(file, state)
    schema = json.dumps(experts_schema(), indent=2, ensure_ascii=False) + "\n"
    replace_files({file: INITIAL.read_text("utf-8"), file.with_name(SCHEMA): schema})
    lacking = embedded.missing()
    if as_json:
        print_json({"written": [str(file), str(file.with_name(SCHEMA))], "lacking": lacking})
        return
    option = "" if file == DEFAULT_CONFIG else f" --config {file}"
    for line in (
        f"{file}: written, with {SCHEMA} beside it for editors",
        f"check it:  moe-gateway check {file}",
        f"serve it:  moe-gateway serve{option}",
    ):
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    if lacking:
        err.print(f"note: {lacking}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def _keep(file: Path, state: Path | None) -> None:
    """What stands there goes into the history. Raises OSError."""
    from gateway.history import History
    from router.sources import Sources

    if file.is_file():
        now = Sources(file, {file.name: file.read_bytes().decode("utf-8", "surrogateescape")})
        History(state_folder(file, state) / "history").record(now, now.digest, why="kept")
