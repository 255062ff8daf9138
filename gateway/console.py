"""How the command speaks: its two streams, errors, progress, JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from rich.console import Console

out, err = Console(), Console(stderr=True)


def fail(message: str, status: int = 1) -> NoReturn:
    """Say what is wrong and leave with that exit status."""
    for line in message.splitlines():
        err.print(f"error: {printable(line)}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(status)


def printable(text: str) -> str:
    """`text` on one line, where no terminal obeys it: what cannot be seen, or UTF-8 cannot carry, is written out."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


@contextmanager
def shown_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A function (step, done, total) that draws a bar on a terminal, and elsewhere writes a line for each step."""
    from rich.progress import Progress

    bars: dict[str, Any] = {}
    with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:

        def show(step: str, done: int, total: int) -> None:
            if step not in bars:
                bars[step] = progress.add_task(step, total=total)
                if not err.is_terminal:
                    err.print(f"{step} …", highlight=False)
            progress.update(bars[step], completed=done)

        yield show


def print_json(value: Any) -> None:
    """Half a character, which UTF-8 cannot carry, is written as JSON's escape for it."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode("utf-8") + "\n")
