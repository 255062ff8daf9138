"""How a command talks with the workers' owner: one line out, lines in, without an event loop."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from gateway.workers.protocol import Asked, Board, Crew, Look, line, read_owner, read_told

ANSWER_SECONDS = 20.0
MOST_LINE = 4 * 1024 * 1024


class Owner:
    """A connection to the owner, whose process is `pid`."""

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self.pid = pid
        self._connection, self._reader = connection, connection.makefile("rb")

    def close(self) -> None:
        self._reader.close()

    def say(self, message: Asked) -> None:
        """Raises OSError."""
        self._connection.sendall(line(message))

    def hear(self, seconds: float | None = ANSWER_SECONDS) -> Crew | Board | None:
        """What it says next, within `seconds`; None where it is gone. Raises TimeoutError: nothing can be heard after that."""
        self._connection.settimeout(seconds)
        try:
            text = self._reader.readline(MOST_LINE)
            return read_told(text) if text.endswith(b"\n") else None
        except TimeoutError:
            raise
        except (OSError, ValueError):
            return None

    def board(self) -> Board | None:
        """What `Look` is answered with. Raises OSError."""
        self.say(Look())
        while (told := self.hear()) is not None:
            if isinstance(told, Board):
                return told
        return None


@contextmanager
def reached(state: Path) -> Iterator[Owner | None]:
    """The owner of the state folder's workers; None where there is none, whatever one that was killed left."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_SECONDS)
        try:
            about = read_owner(state)
            connection.connect(about.socket)
        except (OSError, ValueError):
            yield None
            return
        with closing(Owner(connection, about.pid)) as owner:
            yield owner
