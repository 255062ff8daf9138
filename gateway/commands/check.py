"""moe-gateway check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.commands.shared import DEFAULT_CONFIG, Json, read_config, warn
from gateway.console import out, print_json
from router.errors import ConfigError


def check(
    file: Annotated[Path, typer.Argument(help="The experts file.")] = DEFAULT_CONFIG, as_json: Json = False
) -> None:
    """Say everything that is wrong with an experts file, each with its line.

    Example: moe-gateway check experts.yaml
    """
    from gateway.usage import cost_warnings

    try:
        experts = read_config(file)
    except ConfigError as error:
        if not as_json:
            raise
        print_json({"ok": False, "problems": [{n: getattr(p, n) for n in p.__slots__} for p in error.problems]})
        raise typer.Exit(1) from None
    if as_json:
        print_json(
            {
                "ok": True,
                "experts": list(experts.experts),
                "domains": experts.domain_names,
                "hash": experts.digest,
                "warnings": list(cost_warnings(experts)),
            }
        )
        return
    warn(experts)
    stand_ins = sum(expert.stand_in for expert in experts.experts.values())
    note = f", of which {stand_ins} are stand-ins" if stand_ins else ""
    out.print(
        f"{file}: fine: {len(experts.experts)} experts{note}, domains {', '.join(experts.domain_names)}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
