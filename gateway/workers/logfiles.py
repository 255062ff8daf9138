"""The log files of workers: their last lines, and a bound on their size."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import BinaryIO

from gateway.workers.keeper import STARTS

MOST_BYTES = 16 * 1024 * 1024  # of one file
KEPT = 2  # older parts beside it: coder-0.log.1 is the younger
READ_BYTES = 256 * 1024
LINE_CHARACTERS = 400
_START = f"keeper: {STARTS}"
# Sequences for a terminal, what is left of others, and what turns the writing round.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)


def appended(path: Path) -> BinaryIO:
    """The log, to be written to at its end. It may quote what was asked, and so is for its owner alone. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return _private(path, os.O_APPEND)


def set_aside(path: Path) -> None:
    """Make the file the next older part: who writes to it goes on doing so, who opens it anew begins another."""
    with contextlib.suppress(OSError):
        _shift(path)
        path.replace(_part(path, 1))


def tail(path: Path, lines: int, begin: int = 0) -> list[str]:
    """The last lines, of what was written from byte `begin` on, fit to be shown on a terminal. Empty where there are none."""
    return text(path, begin).splitlines()[-lines:]


def size(path: Path) -> int:
    """Bytes, 0 where there is no such file."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def last_start(path: Path, lines: int) -> list[str]:
    """The last lines, of what was written since the keeper started the server last."""
    written = text(path)
    return written[max(0, written.rfind(_START)) :].strip().splitlines()[-lines:]


def text(path: Path, begin: int = 0) -> str:
    """The end of a log, READ_BYTES at most, of what was written from byte `begin` on, without control characters."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            start = max(begin if begin <= end else 0, end - READ_BYTES)  # it may have been cut since
            file.seek(start)
            written = file.read(READ_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    whole = written.partition("\n")[2] if start > begin else written
    return "\n".join(line[:LINE_CHARACTERS] for line in _ESCAPES.sub("", whole).splitlines())


def bound(path: Path, most: int = MOST_BYTES) -> bool:
    """Put what a file holds into the next older part where it is larger than `most` bytes, and empty it; whether it was.

    Whoever appends to it goes on doing so: what is written in that very moment may be lost, and all but the end, twice `most`,
    where it was a flood.
    """
    try:
        if (end := path.stat().st_size) <= most:
            return False
        with contextlib.suppress(OSError):  # on a full disk it is emptied all the same
            _shift(path)
            with path.open("rb") as file, _private(_part(path, 1), os.O_TRUNC) as part:
                file.seek(max(0, end - 2 * most))
                part.write(file.read(2 * most))
        os.truncate(path, 0)
    except OSError:
        return False
    return True


def _private(path: Path, how: int) -> BinaryIO:
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | how, 0o600), "ab")


def _shift(path: Path) -> None:
    for number in range(KEPT, 1, -1):
        with contextlib.suppress(FileNotFoundError):
            _part(path, number - 1).replace(_part(path, number))


def _part(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")
