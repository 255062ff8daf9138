"""Journal: every answer of a comparison, written as it comes, so that a run that broke off goes on where it stopped."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

import msgspec

from gateway.comparing.answers import Answer

_DECODER = msgspec.json.Decoder(Answer)


class Journal:
    """A file of JSON lines. `known` are the answers in it by their key; those that failed are left out, to be asked again."""

    def __init__(self, path: Path, fresh: bool = False) -> None:
        """Reads what is there, or with `fresh` begins anew. Raises OSError."""
        self.path = path
        self.known: dict[str, Answer] = {}
        if fresh:
            path.unlink(missing_ok=True)
        whole = self._read() if path.exists() else b""
        self._file = path.open("ab")
        if whole and not whole.endswith(b"\n"):
            self._file.write(b"\n")  # the line that broke off stays one of its own, and is not read

    def add(self, answer: Answer) -> None:
        """On the disk when this returns. Raises OSError."""
        self._file.write(msgspec.json.encode(answer) + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        if not answer.error:
            self.known[answer.key] = answer

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _read(self) -> bytes:
        whole = self.path.read_bytes()
        for line in whole.splitlines():
            try:
                answer = _DECODER.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
            if not answer.error:
                self.known[answer.key] = answer
        return whole
