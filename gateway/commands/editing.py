"""An edit of an experts file: tried on its text, checked whole, and written only where the file is still what was read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gateway.console import fail
from gateway.replacing import replace_file
from router.experts import ExpertsFile, parse_sources
from router.sources import read_sources

BOM = "\ufeff"


@dataclass(frozen=True)
class Edit:
    """`before` and `after` are what the file at `path` says; `was` and `text` its bytes and what is to take their place."""

    path: Path
    before: ExpertsFile
    after: ExpertsFile
    was: bytes
    text: str

    def write(self) -> None:
        """Leaves with status 1 where the file was changed meanwhile. Raises OSError; then it is as it was."""
        if self.path.read_bytes() != self.was:
            fail(f"{self.path} was changed meanwhile; nothing was written, the same command tries again")
        replace_file(self.path, self.text)


def edited(path: Path, change: Callable[[str], str]) -> Edit:
    """`change` makes the new text of the file at `path` itself, not of what that extends. Raises ConfigError, also where what comes
    of it is wrong."""
    before = parse_sources(read_sources(path))
    was = path.read_bytes()
    text = was.decode("utf-8").removeprefix(BOM)
    changed = change(text)
    after = parse_sources(read_sources(path, changed))
    return Edit(path, before, after, was, (BOM if was.startswith(BOM.encode()) else "") + changed)
