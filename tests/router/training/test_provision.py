from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from router.artifact import PACKAGED, Artifact, read_manifest
from router.dataset import corpus_hash, training_rows
from router.errors import ArtifactError
from router.experts import ExpertsFile, RouterOptions, load_experts, parse_experts
from router.training.provision import load_or_train
from tests.fakes.corpora import prompts, small_corpus

ROOT = Path(__file__).parents[3]
Reports = list[tuple[str, int, int]]


def own(source: str = "bio", **options: Any) -> ExpertsFile:
    """A file with a domain of its own, whose examples look like prompts of `source` but for their last word.

    Its encoders, `tiny` and `tiny-static` unless the options say otherwise, are to be had from the state folder alone."""
    examples = "\n".join(f'      - "{prompt} and zebras"' for prompt in prompts(source))
    file = parse_experts(
        f"""\
version: 1
domains:
  zoo:
    examples:
{examples}
experts:
  keeper: {{model: m, domains: [zoo], upstream: {{embedded: smollm2}}}}
  general: {{model: m, domains: [general], upstream: {{embedded: smollm2}}}}
"""
    )
    encoders = {"encoder": "tiny", "static": "tiny-static"}
    return file.model_copy(update={"router": RouterOptions(**(encoders | options))})


def times(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(autouse=True)
def small_training_set(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The corpus is a small one, but for those who look at the packaged router."""
    if "packaged" not in request.fixturenames:
        monkeypatch.setattr("router.dataset.load_corpus", small_corpus)


@pytest.fixture(scope="module")
def made(tiny_router: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Reports]:
    """A state folder with a router for own(), and what was reported while it was trained."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(tiny_router, folder / "router")
    reports: Reports = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("router.dataset.load_corpus", small_corpus)
        load_or_train(own(), folder, lambda *r: reports.append(r))
    return folder, reports


@pytest.fixture
def state(made: tuple[Path, Reports], tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(made[0], tmp_path / "state"))


def test_the_shipped_file_is_served_by_the_packaged_router_without_training(tmp_path: Path, packaged: Artifact) -> None:
    reports: Reports = []
    router = load_or_train(load_experts(ROOT / "experts.yaml"), tmp_path / "state", lambda *r: reports.append(r))
    assert router.artifact.folder == PACKAGED
    assert reports == []
    assert not (tmp_path / "state").exists()


def test_a_file_with_a_domain_of_its_own_is_trained_for(made: tuple[Path, Reports]) -> None:
    folder, reports = made
    router = load_or_train(own(), folder, lambda *_: None)
    assert router.artifact.folder == folder / "router"
    assert router.artifact.manifest.domains == ("code", "math", "bio", "general", "zoo")
    assert router.artifact.manifest.corpus_hash == corpus_hash(training_rows(own()))
    assert {step for step, _, _ in reports} == {
        *("reading the corpus with tiny-static", "reading the corpus with tiny"),
        *("fitting the static stage", "fitting the transformer stage"),
    }
    found = router.score_many(["What do cells and tissues do with lipids? and zebras", "Fix the parser in my function"])
    assert [scores.domain for scores in found] == ["zoo", "code"]


def test_the_second_time_nothing_is_trained(state: Path) -> None:
    before = times(state)
    reports: Reports = []
    router = load_or_train(own(), state, lambda *r: reports.append(r))
    assert router.artifact.folder == state / "router"
    assert reports == []
    assert times(state) == before


@pytest.mark.parametrize(
    "changed",
    [
        own("code"),
        own(calibrator="isotonic"),
        own(static=""),
        own(encoder="tiny-static", static=""),
    ],
    ids=["examples", "calibrator", "no cheap stage", "encoder"],
)
def test_a_file_that_asks_for_something_else_is_trained_for(state: Path, changed: ExpertsFile) -> None:
    before = read_manifest(state / "router")
    router = load_or_train(changed, state, lambda *_: None)
    after = read_manifest(state / "router")
    assert after != before
    assert after.corpus_hash == corpus_hash(training_rows(changed))
    assert [stage.encoder for stage in after.stages] == [
        e for e in (changed.router.static, changed.router.encoder) if e
    ]
    assert {stage.calibrator for stage in after.stages} == {changed.router.calibrator}
    assert router.artifact.manifest == after


def test_what_training_does_not_look_at_is_not_trained_for(state: Path) -> None:
    before = times(state)
    load_or_train(own(confidence_floor=0.9, fallback="keeper"), state, lambda *_: None)
    assert times(state) == before


def test_the_packaged_router_serves_again_when_the_file_is_the_shipped_one_again(
    state: Path, packaged: Artifact
) -> None:
    router = load_or_train(load_experts(ROOT / "experts.yaml"), state, lambda *_: None)
    assert router.artifact.folder == PACKAGED
    assert "zoo" in read_manifest(state / "router").domains


@pytest.fixture
def newer(tiny_router: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that ships another version of the encoder `tiny`, in the folder `tiny-beef`."""
    shipped = Path(shutil.copytree(tiny_router, tmp_path / "shipped"))
    (shipped / "tiny-cafe").rename(shipped / "tiny-beef")
    manifest = shipped / "manifest.json"
    manifest.write_text(manifest.read_text("utf-8").replace("tiny-cafe", "tiny-beef"), "utf-8")
    for room in ("provision", "train"):
        monkeypatch.setattr(f"router.training.{room}.PACKAGED", shipped)
    return shipped


def test_a_router_with_an_older_version_of_a_packaged_encoder_is_made_anew_once(state: Path, newer: Path) -> None:
    router = load_or_train(own(), state, lambda *_: None)
    assert [stage.encoder_folder for stage in router.artifact.manifest.stages] == ["tiny-static-cafe", "tiny-beef"]
    assert router.artifact.folder == state / "router"
    before = times(state)
    load_or_train(own(), state, lambda *_: None)
    assert times(state) == before


def test_a_packaged_encoder_that_is_damaged_makes_no_router_older(state: Path, newer: Path) -> None:
    (newer / "tiny-beef" / "model.onnx").unlink()
    before = times(state)
    load_or_train(own(), state, lambda *_: None)
    assert times(state) == before


@pytest.mark.parametrize("file", ["heads_file", "vectors_file", "table.npz"])
def test_a_damaged_router_that_fits_is_refused_by_name(state: Path, file: str) -> None:
    folder = state / "router"
    manifest = read_manifest(folder)
    path = folder / (getattr(manifest, file, None) or f"{manifest.stages[0].encoder_folder}/{file}")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ArtifactError, match=f"{path.name} is damaged"):
        load_or_train(own(), state, lambda *_: None)


def test_a_router_of_another_version_is_made_anew_where_it_was_made(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = state / "router" / "manifest.json"
    text = path.read_text("utf-8")
    path.write_text(json.dumps({**json.loads(text), "format": 1}), "utf-8")
    wanted: list[Path] = []

    def stopped(rows: object, recipe: object, into: Path, progress: object) -> None:
        wanted.append(into)
        path.write_text(text, "utf-8")

    monkeypatch.setattr("router.training.train.train", stopped)
    assert load_or_train(own(), state, lambda *_: None).artifact.folder == state / "router"
    assert wanted == [state / "router"]


@pytest.mark.parametrize("text", ["{", '{"format": 2}'])
def test_a_damaged_manifest_is_refused_by_name(state: Path, text: str) -> None:
    (state / "router" / "manifest.json").write_text(text, "utf-8")
    with pytest.raises(ArtifactError, match=r"router/manifest\.json is damaged"):
        load_or_train(own(), state, lambda *_: None)


@pytest.mark.parametrize("text", ["{", '{"format": 1}'])
def test_a_packaged_router_of_another_version_is_an_error(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (tmp_path / "manifest.json").write_text(text, "utf-8")
    monkeypatch.setattr("router.training.provision.PACKAGED", tmp_path)
    with pytest.raises(ArtifactError, match="is damaged, or of another version"):
        load_or_train(own("code"), state, lambda *_: None)


def test_a_router_that_was_trained_and_cannot_be_loaded_says_both(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.training.train.train", lambda *_: (state / "router" / "manifest.json").unlink())
    with pytest.raises(ArtifactError, match=r"was trained but cannot be loaded: no trained router in"):
        load_or_train(own("code"), state, lambda *_: None)
