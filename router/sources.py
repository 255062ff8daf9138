"""Sources: the texts that a configuration is read from, as they were at one moment."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from router.errors import ConfigError
from router.laying import Laid, lay
from router.textfiles import UnreadableError, read_text

MAX_BYTES = 512 * 1024  # of one file
MAX_FILES = 256


@dataclass(frozen=True)
class Sources:
    """`texts` has by name the text of the file at `path`, which comes first, of all that it extends, and of the files of examples
    that they name. `secrets` are the names of the files of secrets, whose texts are kept nowhere: they are no part of the digest.
    A name is the path from the first one's folder, as it stands in errors."""

    path: Path
    texts: dict[str, str] = field(repr=False)
    secrets: tuple[str, ...] = ()

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

    @property
    def places(self) -> list[Path]:
        """Of every file that has a say, those of secrets as well: what a change is looked for in."""
        return [self.place(name) for name in (*self.texts, *self.secrets)]


def read_sources(path: Path, text: str | None = None) -> Sources:
    """The file at `path` and what it refers to, as they are now; with `text` in place of what the first one says.

    Raises ConfigError where one cannot be read or is no YAML: every other mistake is for `parse_sources` to tell.
    """
    sources, found = read_and_laid(path, text)
    if found.unread:
        raise ConfigError(found.unread, sources.texts)
    return sources


def read_and_laid(path: Path, text: str | None = None) -> tuple[Sources, Laid]:
    """What was read, and what became of it: so that nothing is parsed twice. Raises ConfigError where what it extends cannot be
    read; files of examples that cannot are told by what became of it, so that they hide no other mistake."""
    texts = {} if text is None else {path.name: text}

    def read(name: str) -> str:
        if name not in texts:
            if len(texts) >= MAX_FILES:
                raise UnreadableError(f"is one file too many: an experts.yaml refers to {MAX_FILES} at most")
            texts[name] = read_text(path.parent / name, MAX_BYTES)
        return texts[name]

    with _telling(texts):
        laid = lay(path.name, read, path.parent)
    return Sources(path, texts, tuple(laid.secrets)), laid


def laid(sources: Sources) -> Laid:
    """What becomes of texts that were read before. Raises ConfigError."""

    def kept(name: str) -> str:
        try:
            return sources.texts[name]
        except KeyError:
            raise UnreadableError("was not read with the file that names it") from None

    with _telling(sources.texts):
        return lay(sources.name, kept, sources.path.parent)


@contextmanager
def _telling(texts: dict[str, str]) -> Iterator[None]:
    """Gives errors the texts that they are in."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(error.problems, texts) from None
