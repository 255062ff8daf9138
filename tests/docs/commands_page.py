"""docs/reference/commands.md: what each command says of itself when it is asked with --help."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer.main

from gateway.cli import app

INTRODUCTION = """# Command line

What `--help` says, of every command; this page is written by `make reference`. The exit status is 0 where all is well, 1 where
the thing asked about is wrong, 2 where the command was called wrongly. `--json` prints facts for scripts; colour and progress
are for terminals alone.
"""
WIDTH = 110


def commands_page() -> str:
    return "\n".join([INTRODUCTION, *(section(name, text) for name, text in helps())])


def section(name: str, text: str) -> str:
    return f"## {name}\n\n```text\n{text}\n```\n"


def helps() -> Iterator[tuple[str, str]]:
    """Each command's words, and its help."""
    yield from _helps("moe-gateway", typer.main.get_command(app))


def _helps(name: str, command: Any, parent: Any = None) -> Iterator[tuple[str, str]]:
    context = command.context_class(
        command, info_name=name.split()[-1], parent=parent, terminal_width=WIDTH, max_content_width=WIDTH
    )
    yield name, "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    for inner, below in getattr(command, "commands", {}).items():
        if not below.hidden:
            yield from _helps(f"{name} {inner}", below, context)
