from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from router.artifact import load_artifact
from router.dataset import Row
from router.encoder import ENCODERS
from router.training.train import Recipe, train
from tests.fakes.corpora import small_corpus
from tests.fakes.encoders import FolderEncoder, encoder_folder

EXPERTS = """\
version: 1
router: {encoder: moe-minilm, static: ''}
experts:
  general: {model: m, domains: [general], upstream: {embedded: smollm2}}
"""


@pytest.fixture(autouse=True)
def small_training_set(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("router.dataset.load_corpus", small_corpus)
    with ENCODERS.lending("folder", FolderEncoder):
        yield


def test_another_training_that_ends_while_encoders_are_made_does_not_clear_them_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, output = tmp_path / "experts.yaml", tmp_path / "output"
    config.write_text(EXPERTS, "utf-8")
    other = encoder_folder(tmp_path / "export", name="another")

    def made(rows: Sequence[Row], into: Path, progress: object) -> dict[str, Path]:
        mine = encoder_folder(into, name="moe-minilm")
        train(rows, Recipe("another", "linear", "temperature", None), output, encoders={"another": other})
        return {"moe-minilm": mine}

    monkeypatch.setattr("router.training.encoders.make_encoders", made)
    arguments = ["train", "--config", str(config), "--output", str(output), "--encoders"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert [stage.encoder.name for stage in load_artifact(output).stages] == ["moe-minilm"]
    assert sorted(path.name for path in output.iterdir() if path.is_dir()) == ["moe-minilm-cafe"]
