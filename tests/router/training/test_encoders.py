from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from router.artifact import kind_of, load_artifact
from router.dataset import Row
from router.encoder import ENCODERS
from router.errors import RouterError
from router.experts import RouterOptions
from router.training.encoders import STATIC, TRANSFORMER, make_encoders
from router.training.train import Recipe, train
from tests.fakes.bert import WIDTH, tiny_bert
from tests.fakes.corpora import small_corpus

# Torch sets off deprecation warnings of its own.
pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore")]


def test_what_is_made_is_what_experts_files_ask_for() -> None:
    assert (RouterOptions().encoder, RouterOptions().static) == (TRANSFORMER, STATIC)


def test_an_unknown_base_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(RouterError, match="cannot be loaded"):
        make_encoders(small_corpus(), tmp_path / "made", lambda *_: None, base="")
    assert not (tmp_path / "made").exists()


def test_encoders_are_taught_and_exported_and_a_router_is_trained_on_them(tmp_path: Path) -> None:
    base, into = tiny_bert(tmp_path), tmp_path / "router"
    rows = [*small_corpus(), *(Row(f"関数 loop 数 {i}", "code", language="ja") for i in range(6))]
    steps: list[str] = []
    made = make_encoders(rows, into, lambda step, *_: steps.append(step), str(base))
    assert list(made) == [TRANSFORMER, STATIC]
    assert [kind_of(folder) for folder in made.values()] == ["transformer", "static"]
    assert {"fine-tuning the encoder", "distilling the static table"} <= set(steps)
    assert any(step.endswith("characters of other scripts learned") for step in steps)
    for name, folder in made.items():
        encoder = ENCODERS[kind_of(folder)](folder)
        assert encoder.name == name
        assert np.linalg.norm(encoder.encode(["schleife", "数", ""]), axis=1) == pytest.approx(np.ones(3), abs=1e-3)
    train(small_corpus(), Recipe.of(RouterOptions()), into, encoders=made)
    router = load_artifact(into)
    assert [stage.encoder_folder for stage in router.manifest.stages] == [made[STATIC].name, made[TRANSFORMER].name]
    assert router.stages[-1].encoder.dimensions == WIDTH
    for stage in router.stages:
        found = stage.probabilities([row.text for row in small_corpus()]).argmax(axis=1)
        right = [router.manifest.domains[i] == row.domain for i, row in zip(found, small_corpus(), strict=True)]
        assert np.mean(right) > 0.8
