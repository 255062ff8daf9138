"""Writer: a log handler that holds up nobody. Lines wait for a thread; where their reader has stopped, the newest are dropped and
counted."""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TextIO

from gateway.logs.lines import OURS

MOST_LINES = 10_000  # that wait: some megabytes
FLUSH_SECONDS = 3.0  # at the end, for a reader that may have stopped

Write = Callable[[str], None]


class Writer(logging.Handler):
    """`write` is called with whole lines by a thread of its own, and may block."""

    def __init__(self, lines: logging.Formatter, write: Write, most: int = MOST_LINES) -> None:
        super().__init__()
        self.setFormatter(lines)
        self._write, self._most = write, most
        self._waiting: SimpleQueue[str | threading.Event | None] = SimpleQueue()
        self._dropped = 0
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        if self._waiting.qsize() >= self._most:
            self._dropped += 1
            return
        try:
            self._waiting.put(self.format(record))
        except Exception:  # noqa: BLE001 - logging's own way to say so quotes the record, which may quote a request
            self._dropped += 1

    def flush(self) -> None:
        """Wait until what was logged is written, FLUSH_SECONDS at most."""
        written = threading.Event()
        self._waiting.put(written)
        written.wait(FLUSH_SECONDS)

    def close(self) -> None:
        """The thread ends behind what waits."""
        self._waiting.put(None)
        super().close()

    def _run(self) -> None:
        while (line := self._waiting.get()) is not None:
            if isinstance(line, threading.Event):
                line.set()
                continue
            self._write(f"{line}\n")
            if self._dropped:
                self._tell_of_dropped()

    def _tell_of_dropped(self) -> None:
        with self.lock or threading.RLock():
            dropped, self._dropped = self._dropped, 0
        said = {"name": OURS, "levelno": logging.WARNING, "levelname": "WARNING", "msg": "log lines were dropped"}
        self._write(f"{self.format(logging.makeLogRecord({**said, 'dropped': dropped}))}\n")


def into(stream: TextIO) -> Write:
    """Writes to the stream's file itself, a line at once: what another thread writes, or another process, does not come between,
    and no lock is held that the end of the process would wait for. A reader that is gone is no failure."""
    try:
        number = stream.fileno()
    except (OSError, ValueError):
        return lambda line: print(line, end="", file=stream, flush=True)

    def write(line: str) -> None:
        rest = line.encode("utf-8", "backslashreplace")
        while rest:
            try:
                rest = rest[os.write(number, rest) :]
            except BlockingIOError:
                select.select([], [number], [])
            except OSError:
                return

    return write
