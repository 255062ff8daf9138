"""What several commands take and need: the options, the experts file, the router."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.console import err, fail, printable, shown_progress
from router.errors import ConfigError
from router.experts import ExpertsFile, load_experts

Config = Annotated[Path, typer.Option("--config", "-c", envvar="MOE_GATEWAY_CONFIG", help="The experts file.")]
State = Annotated[
    Path | None, typer.Option("--state", envvar="MOE_GATEWAY_STATE", help="Folder for logs and retrained routers.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
DEFAULT_CONFIG = Path("experts.yaml")


def read_config(path: Path) -> ExpertsFile:
    """Raises ConfigError; leaves with status 1 where there is no such file."""
    try:
        return load_experts(path)
    except ConfigError:
        if os.path.lexists(path):
            raise
        fail(f"there is no {path}; name yours with --config FILE, or have one written with: moe-gateway init")


def provisioned(config: Path, state: Path | None) -> Any:
    """The router that fits the experts file, trained now where there is none."""
    from router.training.provision import load_or_train

    with shown_progress() as progress:
        return load_or_train(read_config(config), state_folder(config, state), progress)


def state_folder(config: Path, state: Path | None) -> Path:
    return state or config.resolve().parent / ".moe-gateway"


def warn(file: ExpertsFile) -> None:
    from gateway.costs import cost_warnings

    for warning in cost_warnings(file):
        err.print(f"warning: {printable(warning.words)}", style="yellow", markup=False, highlight=False, soft_wrap=True)
