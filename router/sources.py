"""Sources: the texts that a configuration is read from. Every byte comes from outside, and none of it may hang or crash us."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from router.errors import ConfigError, Problem

MAX_BYTES = 512 * 1024  # of one file; a second or two to parse at the worst
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_CLOEXEC", 0)


@dataclass(frozen=True)
class Sources:
    """`texts` has by name the text of the file at `path`, which comes first, of all that it extends, and of the files of examples
    that they name. A name is the file's place relative to the first one's folder, as it stands in errors."""

    path: Path
    texts: dict[str, str]

    @property
    def name(self) -> str:
        return next(iter(self.texts))

    @property
    def text(self) -> str:
        """Of the first file."""
        return self.texts[self.name]

    @property
    def digest(self) -> str:
        """12 hexadecimal digits that change with any of the texts."""
        whole = hashlib.sha256(self.text.encode("utf-8", "surrogatepass"))
        for name, text in list(self.texts.items())[1:]:
            for part in (name, text):
                whole.update(b"\0" + part.encode("utf-8", "surrogatepass"))
        return whole.hexdigest()[:12]

    def place(self, name: str) -> Path:
        """Where the file of that name is. Symbolic links are not followed: those of a Kubernetes mount change."""
        return self.path.parent / name


def read_sources(path: Path) -> Sources:
    """Raises ConfigError where a file cannot be read, is too large, or is not text in UTF-8."""
    return Sources(path, {path.name: read_text(path, path.name)})


def read_text(path: Path, name: str, most: int = MAX_BYTES) -> str:
    """The text of a file of at most `most` bytes; `name` stands in the errors. Raises ConfigError, and never waits for a writer."""
    try:
        raw = _read(path, most)
    except OSError as error:
        raise ConfigError([Problem(name, 1, 1, "", _why(error))]) from None
    if len(raw) > most:
        raise ConfigError([Problem(name, 1, 1, "", f"is larger than {most // 1024} KiB and was not read")])
    return _decoded(raw, name)


def _read(path: Path, most: int) -> bytes:
    """At most one byte more than `most`. Raises OSError, of a thing that is no file as well."""
    descriptor = os.open(path, _OPEN_FLAGS)
    with open(descriptor, "rb") as file:
        kind = os.fstat(descriptor)
        if stat.S_ISDIR(kind.st_mode):
            raise IsADirectoryError(errno.EISDIR, "")
        if not stat.S_ISREG(kind.st_mode):
            raise OSError(errno.ENXIO, "")
        return file.read(most + 1) if kind.st_size <= most else bytes(most + 1)


def _why(error: OSError) -> str:
    known = {
        errno.ENOENT: "is not there",
        errno.ENOTDIR: "is not there: a part of its path is no folder",
        errno.EISDIR: "is a folder; name a file in it",
        errno.EACCES: "cannot be read: permission denied",
        errno.EPERM: "cannot be read: permission denied",
        errno.ENXIO: "is a pipe, a socket or a device; a file is needed",
        errno.ELOOP: "is a symbolic link that leads back to itself",
        errno.ENAMETOOLONG: "is not there: its name is too long",
    }
    return known.get(error.errno or 0) or f"cannot be read: {(error.strerror or type(error).__name__).lower()}"


def _decoded(raw: bytes, name: str) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")) or (b"\0" in raw[:4] and len(raw) > 1):
        raise ConfigError([Problem(name, 1, 1, "", "is written in UTF-16 or UTF-32; save it as UTF-8")])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode("utf-8", "replace")
        line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
        message = f"byte 0x{error.object[error.start]:02x} is not UTF-8 (Latin-1 perhaps); save the file as UTF-8"
        raise ConfigError([Problem(name, line, column, "", message)]) from None
    if "\0" in text:
        before = text[: text.index("\0")]
        line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
        raise ConfigError([Problem(name, line, column, "", "a NUL stands here; this is no text")])
    return text
