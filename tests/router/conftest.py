"""What the tests of the router share: the packaged router, and a kind of encoder that needs no model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from router.artifact import PACKAGED, Artifact, load_artifact
from router.encoder import ENCODERS
from tests.fakes.encoders import FolderEncoder


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
