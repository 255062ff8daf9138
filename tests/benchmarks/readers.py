"""The encoders that methods read with, and their vectors, kept on disk: a text is read once, however often this is run."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from router.artifact import PACKAGED
from router.dataset import Example
from router.training.export import DEFAULT_ENCODER, export_encoder
from router.vectors import key_of
from tests.benchmarks.contrastive import make_contrastive
from tests.benchmarks.tables import make_token_table, opened

Vectors = NDArray[np.float32]
Progress = Callable[[str, int, int], None]

ORIGINAL, ORIGINAL_STATIC = DEFAULT_ENCODER, "minilm-table-256"
CONTRASTIVE, SMALLER = "minilm-contrastive", "moe-minilm-l3"
KEPT_EVERY = 1024  # texts read between two savings


class NotHereError(Exception):
    """An encoder that cannot be had here, and why."""


@dataclass(frozen=True)
class Shelf:
    """Finds the folders of the encoders by name, or makes them below `cache`: `examples` are what may be learned from.

    `others` are folders of encoders that are neither packaged nor made here.
    """

    cache: Path
    examples: Sequence[Example]
    progress: Progress
    others: Sequence[Path] = ()

    def folder(self, source: str) -> Path:
        """Raises NotHereError."""
        for about in (*(other / "encoder.json" for other in self.others), *sorted(PACKAGED.glob("*/encoder.json"))):
            if _name_in(about) == source:
                return about.parent
        for about in sorted(self.cache.glob("*/encoder.json")):
            if _name_in(about) == source:
                return about.parent
        self.cache.mkdir(parents=True, exist_ok=True)
        return self._made(source)

    def _made(self, source: str) -> Path:
        if source == ORIGINAL:
            return export_encoder(source, self.cache)
        if source == ORIGINAL_STATIC:
            make_token_table(ORIGINAL, source, self.cache / source)
            return self.cache / source
        if source == CONTRASTIVE:
            tuned = self.cache / "tuned" / source
            make_contrastive(ORIGINAL, self.examples, tuned, self.progress)
            return _named(export_encoder(str(tuned), self.cache), source)
        raise NotHereError(f"there is no encoder {source} in {PACKAGED.name} nor among the folders given")


def _name_in(about: Path) -> str:
    """The encoder's name; none where the file is missing."""
    return str(json.loads(about.read_text("utf-8"))["name"]) if about.is_file() else ""


def _named(folder: Path, name: str) -> Path:
    about = json.loads((folder / "encoder.json").read_text("utf-8"))
    (folder / "encoder.json").write_text(json.dumps(about | {"name": name}, indent=2) + "\n", "utf-8")
    return folder


class Library:
    """Reads texts with the shelf's encoders. What they made of a text is kept in `cache`, by the encoder's folder."""

    def __init__(self, folder_of: Callable[[str], Path], cache: Path, progress: Progress) -> None:
        self._folder_of, self._cache, self._progress = folder_of, cache, progress
        self._books: dict[str, _Book] = {}

    def read(self, source: str, texts: Sequence[str]) -> Vectors:
        """The vectors of `texts`, shape (len(texts), dimensions). Raises NotHereError."""
        book = self._book(source)
        missing = list(dict.fromkeys(text for text in texts if key_of(text) not in book.places))
        for start in range(0, len(missing), KEPT_EVERY):
            book.add(missing[start : start + KEPT_EVERY])
            self._progress(f"reading with {source}", min(start + KEPT_EVERY, len(missing)), len(missing))
        return book.vectors[[book.places[key_of(text)] for text in texts]]

    def folder(self, source: str) -> Path:
        """The folder of the encoder that reads: the same one throughout, whatever becomes of the shelf meanwhile."""
        return self._book(source).folder

    def _book(self, source: str) -> _Book:
        if source not in self._books:
            folder = self._folder_of(source)
            self._books[source] = _Book(folder, self._cache / f"{folder.name}.npz")
        return self._books[source]


class _Book:
    """One encoder's vectors: `places` maps a text's key to its row."""

    def __init__(self, folder: Path, path: Path) -> None:
        self.folder, self._path, self._encoder = folder, path, opened(folder)
        self._keys: list[int] = []
        self.vectors: Vectors = np.zeros((0, self._encoder.dimensions), dtype=np.float32)
        if path.is_file():
            with np.load(path, allow_pickle=False) as kept:
                self._keys, self.vectors = kept["keys"].tolist(), kept["vectors"]
        self.places = {key: row for row, key in enumerate(self._keys)}

    def add(self, texts: Sequence[str]) -> None:
        self.vectors = np.concatenate([self.vectors, self._encoder.encode(texts)])
        self._keys += [key_of(text) for text in texts]
        self.places = {key: row for row, key in enumerate(self._keys)}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        scratch = self._path.with_suffix(".new.npz")
        np.savez(scratch, allow_pickle=False, keys=np.array(self._keys, dtype=np.uint64), vectors=self.vectors)
        scratch.replace(self._path)


@dataclass
class Remembering:
    """An Encoder that looks a text's vector up in the library before it reads it."""

    name: str
    dimensions: int
    library: Library

    def encode(self, texts: Sequence[str]) -> Vectors:
        return self.library.read(self.name, texts)
