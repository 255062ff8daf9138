"""A text file of somebody else's: read whole and bounded, or refused in words; never waited for."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

# A pipe without a writer is opened at once, and then seen to be none of ours.
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_CLOEXEC", 0)
_WHY = {
    errno.ENOENT: "is not there",
    errno.ENOTDIR: "is not there: a part of its path is no folder",
    errno.ENAMETOOLONG: "is not there: its name is too long",
    errno.EISDIR: "is a folder; name a file in it",
    errno.EACCES: "cannot be read: permission denied",
    errno.EPERM: "cannot be read: permission denied",
    errno.ENXIO: "is a pipe, a socket or a device, and no file",
    errno.ELOOP: "is a symbolic link that leads back to itself",
}


class UnreadableError(Exception):
    """The message goes on from the file's name. `place` is the line and column, from 1, of what is no text."""

    def __init__(self, why: str, place: tuple[int, int] | None = None) -> None:
        super().__init__(why)
        self.place = place


def read_text(path: Path, most: int) -> str:
    """The text of a file of at most `most` bytes in UTF-8, without its byte order mark. Raises UnreadableError."""
    try:
        raw = _read(path, most)
    except OSError as error:
        unknown = f"cannot be read: {(error.strerror or type(error).__name__).lower()}"
        raise UnreadableError(_WHY.get(error.errno or 0, unknown)) from None
    except ValueError:  # a NUL in its name, or half a character
        raise UnreadableError("is not there: no file has such a name") from None
    if len(raw) > most:
        raise UnreadableError(f"is larger than {most // 1024} KiB, and so it was not read")
    return _decoded(raw)


def _read(path: Path, most: int) -> bytes:
    """At most one byte more than `most`. Raises OSError, of what is no file as well."""
    descriptor = os.open(path, _OPEN_FLAGS)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.ENXIO, "")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(most + 1)
    finally:
        os.close(descriptor)


def _decoded(raw: bytes) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in raw[:4]:
        raise UnreadableError("is in UTF-16, UTF-32 or no text at all; save it as UTF-8", (1, 1))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode("utf-8", "replace")
        raise UnreadableError(
            f"is not in UTF-8: there is a byte 0x{error.object[error.start]:02x} here, as Latin-1 has it; save it as UTF-8",
            _end(before),
        ) from None
    if "\0" in text:
        raise UnreadableError("is no text: there is a NUL here", _end(text[: text.index("\0")]))
    return text


def _end(text: str) -> tuple[int, int]:
    """Line and column, from 1, of what follows the text."""
    return text.count("\n") + 1, len(text) - text.rfind("\n")
