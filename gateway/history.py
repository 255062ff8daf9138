"""History: the configurations that were served, newest first, each with the texts of all its files, so that one can go back.

Texts hold references to secrets, never secrets; folder and files are for their owner alone nonetheless.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from gateway.replacing import written_beside
from router.sources import Sources

KEPT = 50  # entries
MOST_BYTES = 32 * 1024 * 1024  # of all of them together
ENDING = ".json"


class Entry(msgspec.Struct, frozen=True):
    """One configuration. `at` is when it was first served, in seconds of UNIX time; `why` is start, reload or rollback, or kept for
    what stood in the files when a command replaced it, served or not. `main` is where the experts file was, and `texts` are as in
    Sources."""

    number: int
    at: float
    digest: str
    why: str
    main: str
    texts: dict[str, str]

    @property
    def sources(self) -> Sources:
        return Sources(Path(self.main), self.texts)


class History:
    """Of one state folder. Several processes may record at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def record(self, sources: Sources, digest: str, at: float | None = None, why: str = "reload") -> Entry:
        """Note what is served; nothing new where that was the last of its file that was noted. Raises OSError."""
        main = str(sources.path.absolute())
        with self._turn():
            last = next(iter(self.entries(sources.path)), None)
            if last is not None and last.texts == sources.texts:
                return last
            number = max(self._numbers(), default=0) + 1
            made = Entry(number, time.time() if at is None else at, digest, why, main, dict(sources.texts))
            written_beside(self._path(number), json.dumps(msgspec.structs.asdict(made))).replace(self._path(number))
            self._prune()
        return made

    def entries(self, main: Path | None = None) -> list[Entry]:
        """Newest first; of one experts file alone where it is given. What is damaged is left out: `damaged` has it."""
        found = (self._read(number) for number in self._numbers())
        return [e for e in found if e is not None and (main is None or e.main == str(main.absolute()))]

    def damaged(self) -> list[Path]:
        return [self._path(number) for number in self._numbers() if self._read(number) is None]

    def _numbers(self) -> list[int]:
        """From the newest to the oldest."""
        found = (path.stem for path in self.folder.glob(f"*{ENDING}"))
        return sorted((int(stem) for stem in found if stem.isascii() and stem.isdigit()), reverse=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06}{ENDING}"

    def _read(self, number: int) -> Entry | None:
        path = self._path(number)
        try:
            if path.stat().st_size > MOST_BYTES:
                return None
            entry = msgspec.convert(json.loads(path.read_bytes()), Entry)
        except (OSError, ValueError, RecursionError):  # msgspec's and json's errors are ValueErrors
            return None
        fine = entry.number == number and entry.texts and f"{entry.why}{entry.digest}".isprintable()
        return entry if fine else None

    def _prune(self) -> None:
        """The newest stays whatever its size."""
        size = 0
        for place, number in enumerate(self._numbers()):
            with contextlib.suppress(FileNotFoundError):
                size += self._path(number).stat().st_size
                if place and (place >= KEPT or size > MOST_BYTES):
                    self._path(number).unlink()

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)
