"""What the tests of the router share: the packaged router, and a kind of encoder that needs no model."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from router.artifact import PACKAGED, Artifact, load_artifact, save_artifact
from router.classifier import LinearHead
from router.encoder import ENCODERS, Encoder, StaticEncoder, TransformerEncoder
from router.vectors import Vectors
from tests.fakes.corpora import small_corpus
from tests.fakes.encoders import ABOUT, FolderEncoder, stage_of, tiny_encoder, tiny_static
from tests.fakes.packages import Install, installer


@pytest.fixture(scope="session")
def packaged() -> Artifact:
    """The router that the package ships."""
    return load_artifact(PACKAGED)


@pytest.fixture(autouse=True, scope="session")
def folder_encoders() -> Iterator[None]:
    """Artifacts may name the encoder kind `folder`."""
    with ENCODERS.lending("folder", FolderEncoder):
        yield


@pytest.fixture(scope="session")
def tiny_router(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a saved router whose encoders, `tiny-static` and `tiny`, know the words of the small corpus."""
    parent = tmp_path_factory.mktemp("tiny")
    texts = ["zebras", *(row.text for row in small_corpus())]
    static, transformer = tiny_static(parent / "export"), tiny_encoder(parent / "export", texts)
    encoders: list[Encoder] = [StaticEncoder(static), TransformerEncoder(transformer)]
    untrained = LinearHead(np.zeros((2, 48), dtype=np.float32), np.zeros(2, dtype=np.float32))
    stages = [
        (stage_of(encoders[0], untrained, "static", sure=1.0), static),
        (stage_of(encoders[1], untrained), transformer),
    ]
    nothing = Vectors.of([], {encoder.name: np.zeros((0, 48), dtype=np.float32) for encoder in encoders})
    save_artifact(parent / "router", stages, nothing, ABOUT)
    return parent / "router"


@pytest.fixture
def there(tiny_router: Path, tmp_path: Path) -> Path:
    """A folder to train in that holds the encoders `tiny-static` and `tiny` already."""
    return Path(shutil.copytree(tiny_router, tmp_path / "router"))


@pytest.fixture
def install(tmp_path: Path) -> Iterator[Install]:
    """install(name, group, entry points, files) puts a package where Python finds it until the test ends."""
    yield from installer(tmp_path / "site")
