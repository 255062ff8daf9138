"""moe-gateway train."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from gateway.commands.shared import DEFAULT_CONFIG, Config, Json, State, read_config, state_folder
from gateway.console import out, print_json, shown_progress


def train(
    config: Config = DEFAULT_CONFIG,
    state: State = None,
    output: Annotated[Path | None, typer.Option(help="Artifact folder; the state folder's where not given.")] = None,
    encoders: Annotated[
        bool,
        typer.Option("--encoders", help="Make the encoders anew first, for --output: an hour, and the train extra."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Train the router on the corpus and on the examples of an experts file.

    Example: moe-gateway train --config experts.yaml
    """
    from router.dataset import load_corpus, training_rows
    from router.training.encoders import make_encoders
    from router.training.train import Recipe
    from router.training.train import train as train_router

    file = read_config(config)
    folder = output or state_folder(config, state) / "router"
    with shown_progress() as progress, TemporaryDirectory() as scratch:
        # Not in the artifact's folder: another training that ends meanwhile would take them for what an earlier one left.
        made = make_encoders(load_corpus(), Path(scratch), progress) if encoders else {}
        manifest = train_router(training_rows(file), Recipe.of(file.router), folder, progress, made)
    if as_json:
        print_json(manifest.model_dump())
        return
    scores = ", ".join(f"{name} {value:g}" for name, value in manifest.held_out.items())
    out.print(
        f"trained on {manifest.rows} prompts into {folder}; held out: {scores}",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
