"""What the tests of the router share: the packaged router, and a kind of encoder that needs no model."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from router.artifact import PACKAGED, Artifact, load_artifact, save_artifact
from router.classifier import LinearHead
from router.encoder import ENCODERS
from tests.fakes.corpora import small_corpus
from tests.fakes.encoders import ABOUT, FolderEncoder, tiny_encoder


@pytest.fixture(scope="session")
def packaged() -> Artifact:
    """The router that the package ships."""
    return load_artifact(PACKAGED)


@pytest.fixture(autouse=True, scope="session")
def folder_encoders() -> Iterator[None]:
    """Artifacts may name the encoder kind `folder`."""
    ENCODERS["folder"] = FolderEncoder
    yield
    del ENCODERS["folder"]


@pytest.fixture(scope="session")
def tiny_router(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a saved router whose encoder, `tiny`, knows the words of the small corpus."""
    parent = tmp_path_factory.mktemp("tiny")
    encoder = tiny_encoder(parent / "export", [row.text for row in small_corpus()])
    head = LinearHead(np.zeros((2, 48), dtype=np.float32), np.zeros(2, dtype=np.float32))
    save_artifact(parent / "router", encoder, head, {**ABOUT, "encoder": "tiny", "dimensions": 48})
    return parent / "router"


@pytest.fixture
def there(tiny_router: Path, tmp_path: Path) -> Path:
    """A folder to train in that holds the encoder `tiny` already."""
    return Path(shutil.copytree(tiny_router, tmp_path / "router"))
