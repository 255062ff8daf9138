"""moe-gateway schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def schema(
    output: Annotated[Path | None, typer.Option(help="Write it there, and print nothing.")] = None,
) -> None:
    """Print the JSON Schema of experts.yaml, by which editors complete and check it. Its first line tells them where it is:

    # yaml-language-server: $schema=experts.schema.json

    Example: moe-gateway schema --output experts.schema.json
    """
    from gateway.replacing import replace_file
    from router.schema import experts_schema

    text = json.dumps(experts_schema(), indent=2, ensure_ascii=False) + "\n"
    if output is None:
        typer.echo(text, nl=False)
    else:
        replace_file(output, text)
