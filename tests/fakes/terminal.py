"""The command on a terminal of its own: what is typed there, and what is seen."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.fakes.upstream import PATIENCE


class Terminal:
    """A process on a terminal of its own. `seen` is what it wrote, without colours."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process, self._master = process, master
        self.seen = ""

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def until(self, pattern: str, seconds: float = PATIENCE) -> bool:
        """Whether it writes that from here on."""
        start, end = len(self.seen), time.monotonic() + seconds
        while not re.search(pattern, self.seen[start:]):
            ready, _, _ = select.select([self._master], [], [], max(0.0, end - time.monotonic()))
            if not ready or not (told := self._read()):
                return False
            self.seen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", told)
        return True

    def _read(self) -> str:
        try:
            return os.read(self._master, 65536).decode("utf-8", "ignore")
        except OSError:  # the other end is closed
            return ""


def _hears_sigint() -> None:
    """A shell has what it runs in the background ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def terminal(*arguments: str, rows: int = 24, columns: int = 100, term: str = "xterm-256color") -> Iterator[Terminal]:
    """`term` is what it calls itself: dumb, and nothing is drawn over what was written."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    command = [sys.executable, "-m", "gateway.cli", *arguments]
    environment = {**os.environ, "TERM": term}
    process = subprocess.Popen(
        command,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment,
        start_new_session=True,
        preexec_fn=_hears_sigint,
    )
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        process.kill()
        process.wait()
        os.close(master)
