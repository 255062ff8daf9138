"""moe-gateway dashboards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.commands.shared import Json
from gateway.console import fail, out, print_json
from gateway.replacing import replace_file
from router.errors import MissingExtraError

FOLDER = Path("deploy/grafana/dashboards")

dashboards = typer.Typer(no_args_is_help=True, help="Grafana's dashboards, built from code.")


@dashboards.callback()
def _of_grafana() -> None:
    """Makes `build` a command of its own."""


@dashboards.command()
def build(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the files.")] = FOLDER,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; say which files are not what is built.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a JSON file for each of Grafana's dashboards.

    Example: moe-gateway dashboards build --output /var/lib/grafana/dashboards
    """
    built = _built()
    stale = [name for name, text in built.items() if not _is(output / name, text)]
    if not check:
        output.mkdir(parents=True, exist_ok=True)
        for name in stale:
            (output / name).touch()
            replace_file(output / name, built[name])
    if as_json:
        print_json({"ok": not (check and stale), "folder": str(output), "files": list(built), "changed": stale})
    elif not check:
        out.print(
            f"{output}: {len(built)} dashboards, {len(stale)} changed", highlight=False, markup=False, soft_wrap=True
        )
    elif not stale:
        out.print(f"{output}: {len(built)} dashboards, all as built", highlight=False, markup=False, soft_wrap=True)
    if check and stale:
        if as_json:
            raise typer.Exit(1)
        fail(
            "\n".join(
                f"{output / name} is not what the code builds; run: moe-gateway dashboards build" for name in stale
            )
        )


def _built() -> dict[str, str]:
    """Each file's text by its name. Raises MissingExtraError."""
    try:
        from gateway.dashboards.collection import all_dashboards, text
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "grafana_foundation_sdk":
            raise
        raise MissingExtraError("grafana-foundation-sdk", "dashboards") from error
    return {f"{name}.json": text(dashboard) for name, dashboard in all_dashboards().items()}


def _is(path: Path, text: str) -> bool:
    try:
        return path.read_bytes() == text.encode()
    except FileNotFoundError:
        return False
