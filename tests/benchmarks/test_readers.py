from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from router.training.encoders import STATIC, TRANSFORMER
from tests.benchmarks import readers
from tests.benchmarks.readers import SMALLER, Library, NotHereError, Remembering, Shelf
from tests.fakes.encoders import tiny_static

TEXTS = ["red fox", "blue whale", "red whale"]


def silent(step: str, done: int, total: int) -> None:
    pass


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_static(tmp_path / "encoders")


def test_a_text_is_read_once_and_remembered_by_the_next_run(folder: Path, tmp_path: Path) -> None:
    steps: list[tuple[str, int]] = []

    def heard(step: str, done: int, total: int) -> None:
        steps.append((step, total))

    first = Library(lambda source: folder, tmp_path / "kept", heard).read("tiny", [*TEXTS, TEXTS[0]])
    assert steps == [("reading with tiny", 3)]
    again = Library(lambda source: folder, tmp_path / "kept", heard)
    assert np.array_equal(again.read("tiny", TEXTS[::-1]), first[2::-1])
    assert len(steps) == 1
    again.read("tiny", ["a red one", TEXTS[0]])
    assert steps[1:] == [("reading with tiny", 1)]


def test_what_is_kept_names_no_text(folder: Path, tmp_path: Path) -> None:
    Library(lambda source: folder, tmp_path / "kept", silent).read("tiny", ["secret words"])
    (kept,) = (tmp_path / "kept").iterdir()
    assert b"secret" not in kept.read_bytes()


def test_a_router_may_read_from_the_library(folder: Path, tmp_path: Path) -> None:
    library = Library(lambda source: folder, tmp_path / "kept", silent)
    assert np.array_equal(Remembering("tiny", 48, library).encode(TEXTS), library.read("tiny", TEXTS))


def test_an_encoder_is_found_by_its_name_or_said_to_be_missing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "PACKAGED", folder.parent)
    about = json.loads((folder / "encoder.json").read_text("utf-8"))
    (folder / "encoder.json").write_text(json.dumps(about | {"name": STATIC}), "utf-8")
    shelf = Shelf(tmp_path / "cache", [], silent)
    assert shelf.folder(STATIC) == folder
    with pytest.raises(NotHereError, match=TRANSFORMER):
        shelf.folder(TRANSFORMER)
    with pytest.raises(NotHereError, match=SMALLER):
        shelf.folder(SMALLER)
    monkeypatch.setattr(readers, "PACKAGED", tmp_path / "nowhere")
    assert Shelf(tmp_path / "cache", [], silent, [folder]).folder(STATIC) == folder  # given by hand
