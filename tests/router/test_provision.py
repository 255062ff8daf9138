from __future__ import annotations

from pathlib import Path

import pytest

from router.artifact import PACKAGED, read_manifest
from router.dataset import corpus_hash, training_rows
from router.decision import Query
from router.errors import ArtifactError, CorpusError
from router.experts import ExpertsFile, load_experts, parse_experts
from router.provision import load_or_train
from tests.fakes.corpora import prompts

ROOT = Path(__file__).parents[2]
Reports = list[tuple[str, int, int]]


def own(first: str = "bio", second: str = "code", options: str = "encoder: tiny") -> ExpertsFile:
    """A file with two domains of its own and no built-in one, so that there is little to train on."""

    def examples(source: str) -> str:
        return "\n".join(f'      - "{prompt}"' for prompt in prompts(source))

    return parse_experts(
        f"""\
version: 1
router: {{{options}}}
domains:
  zoo:
    examples:
{examples(first)}
  lab:
    examples:
{examples(second)}
experts:
  keeper: {{model: m, domains: [zoo], upstream: {{embedded: smollm2}}}}
  chemist: {{model: m, domains: [lab], upstream: {{embedded: smollm2}}}}
"""
    )


def times(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def state(there: Path) -> Path:
    """A state folder with a router for own()."""
    load_or_train(own(), there.parent, lambda *_: None)
    return there.parent


def test_the_shipped_file_is_served_by_the_packaged_router_without_training(tmp_path: Path) -> None:
    reports: Reports = []
    router = load_or_train(load_experts(ROOT / "experts.yaml"), tmp_path / "state", lambda *r: reports.append(r))
    assert router.artifact.folder == PACKAGED
    assert reports == []
    assert not (tmp_path / "state").exists()


def test_a_file_with_domains_of_its_own_is_trained_for(tmp_path: Path) -> None:
    reports: Reports = []
    file = own(options="")
    router = load_or_train(file, tmp_path, lambda *r: reports.append(r))
    assert router.artifact.folder == tmp_path / "router"
    assert router.artifact.manifest.domains == ("lab", "zoo")
    assert router.artifact.manifest.corpus_hash == corpus_hash(training_rows(file))
    assert {step for step, _, _ in reports} == {"embedding the corpus", "fitting the classifier"}
    assert router.decide(Query("What do cells and tissues do with water?")).expert == "keeper"
    assert router.decide(Query("Fix the decorator in my Python function")).expert == "chemist"


def test_the_second_time_nothing_is_trained(state: Path) -> None:
    before = times(state)
    reports: Reports = []
    router = load_or_train(own(), state, lambda *r: reports.append(r))
    assert router.artifact.folder == state / "router"
    assert reports == []
    assert times(state) == before


@pytest.mark.parametrize(
    "changed", [own("general", "code"), own(options="encoder: tiny, head: linear")], ids=["examples", "head"]
)
def test_other_examples_or_another_head_are_trained_for(state: Path, changed: ExpertsFile) -> None:
    before = read_manifest(state / "router")
    router = load_or_train(changed, state, lambda *_: None)
    after = read_manifest(state / "router")
    assert after.head_file != before.head_file
    assert (after.head, after.corpus_hash) == (changed.router.head, corpus_hash(training_rows(changed)))
    assert router.artifact.manifest == after


def test_what_training_does_not_look_at_is_not_trained_for(state: Path) -> None:
    before = times(state)
    load_or_train(own(options="encoder: tiny, confidence_floor: 0.9, fallback: keeper"), state, lambda *_: None)
    assert times(state) == before


def test_the_packaged_router_serves_again_when_the_file_is_the_shipped_one_again(state: Path) -> None:
    router = load_or_train(load_experts(ROOT / "experts.yaml"), state, lambda *_: None)
    assert router.artifact.folder == PACKAGED
    assert read_manifest(state / "router").domains == ("lab", "zoo")


@pytest.mark.parametrize("file", ["head_file", "tokenizer.json"])
def test_a_damaged_router_that_fits_is_refused_by_name(state: Path, file: str) -> None:
    folder = state / "router"
    manifest = read_manifest(folder)
    path = folder / (manifest.head_file if file == "head_file" else f"{manifest.encoder_folder}/{file}")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ArtifactError, match=f"{path.name} is damaged"):
        load_or_train(own(), state, lambda *_: None)


def test_a_damaged_manifest_is_refused_by_name(state: Path) -> None:
    (state / "router" / "manifest.json").write_text("{", "utf-8")
    with pytest.raises(ArtifactError, match=r"manifest\.json is damaged"):
        load_or_train(own(), state, lambda *_: None)


def test_a_file_that_cannot_be_trained_for_leaves_what_is_there(state: Path) -> None:
    before = times(state)
    lonely = parse_experts(
        "version: 1\ndomains: {zoo: {examples: [a, b, c, d, e]}}\n"
        "experts:\n  a: {model: m, domains: [zoo], upstream: {embedded: smollm2}}\n"
    )
    with pytest.raises(CorpusError):
        load_or_train(lonely, state, lambda *_: None)
    assert times(state) == before
