from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from router.artifact import PACKAGED, Artifact, load_artifact, read_manifest
from router.calibration import CALIBRATORS, Temperature
from router.cascade import Stage
from router.classifier import HEADS
from router.dataset import CORPUS, Row, corpus_hash
from router.detectors import Detectors
from router.encoder import ENCODERS, Encoder
from router.errors import ArtifactError, CorpusError
from router.experts import RouterOptions
from router.measuring.measures import score_probabilities
from router.training.train import BLEND, CHUNK, FOLDS, LEAST_HELD_OUT, SEED, SURE, Recipe, encode, find_encoder, train
from tests.fakes.corpora import numbered_corpus, prompts, small_corpus, trained_on
from tests.fakes.encoders import FolderEncoder, encoder_folder

ROOT = Path(__file__).parents[3]
Floats = NDArray[np.float32]
Floats64 = NDArray[np.float64]
RECIPE = Recipe("tiny", "linear", "temperature", "tiny-static")
ALONE = replace(RECIPE, cheap=None)
Reports = list[tuple[str, int, int]]


@pytest.fixture(scope="module")
def trained(tiny_router: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A router trained on the small corpus."""
    folder = tmp_path_factory.mktemp("trained")
    encoders = {stage.encoder: tiny_router / stage.encoder_folder for stage in read_manifest(tiny_router).stages}
    train(small_corpus(), RECIPE, folder, encoders=encoders)
    return load_artifact(folder)


def labels(stage: Stage, rows: Sequence[Row]) -> NDArray[np.int64]:
    """The place of the domain that the stage gives each row."""
    return np.asarray(stage.probabilities([row.text for row in rows]).argmax(axis=1))


def accuracy(artifact: Artifact, rows: Sequence[Row], stage: int = -1) -> float:
    found = labels(artifact.stages[stage], rows)
    return float(np.mean([artifact.manifest.domains[i] == row.domain for i, row in zip(found, rows, strict=True)]))


def heads_of(artifact: Artifact) -> list[NDArray[np.generic]]:
    return [array for stage in artifact.stages for array in stage.head.arrays().values()]


def assert_same_heads(one: Artifact, other: Artifact) -> None:
    for ours, theirs in zip(heads_of(one), heads_of(other), strict=True):
        assert np.array_equal(ours, theirs)


# Training


def test_every_stage_of_a_trained_router_tells_the_domains_apart(trained: Artifact) -> None:
    assert [accuracy(trained, small_corpus(), stage) > 0.95 for stage in (0, 1)] == [True, True]


def test_the_manifest_says_what_the_router_was_trained_on(trained: Artifact) -> None:
    rows, manifest = small_corpus(), trained.manifest
    assert manifest.domains == ("code", "math", "bio", "general")
    assert manifest.added == ()
    assert (manifest.rows, manifest.corpus_hash) == (len(rows), corpus_hash(rows))
    assert set(manifest.libraries) == {"numpy", "onnxruntime", "scikit-learn", "tokenizers"}
    assert [(s.name, s.encoder, s.dimensions, s.head, s.calibrator, s.sure, s.blend) for s in manifest.stages] == [
        ("static", "tiny-static", 48, "linear", "temperature", SURE, 0.0),
        ("transformer", "tiny", 48, "linear", "temperature", 0.0, BLEND),
    ]


def test_the_manifest_has_the_figures_of_the_best_stage_on_the_rows_that_were_held_out(trained: Artifact) -> None:
    held_out = [row for row in small_corpus() if row.held_out]
    texts = [row.text for row in held_out]
    probabilities = trained.stages[1].probabilities(texts, trained.stages[0].probabilities(texts))
    assert trained.manifest.held_out["rows"] == len(held_out) >= 4
    expected = score_probabilities(held_out, trained.manifest.domains, probabilities).summary()
    assert trained.manifest.held_out == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("head", sorted(HEADS))
def test_rows_that_are_held_out_teach_nothing(there: Path, head: str) -> None:
    rows = small_corpus()
    wrong = {"code": "math", "math": "bio", "bio": "general", "general": "code"}
    mislabelled = [replace(row, domain=wrong[row.domain]) if row.held_out else row for row in rows]
    honest, honest_artifact = train(rows, replace(ALONE, head=head), there), load_artifact(there)
    misled, misled_artifact = train(mislabelled, replace(ALONE, head=head), there), load_artifact(there)
    assert_same_heads(honest_artifact, misled_artifact)
    assert np.array_equal(
        honest_artifact.stages[0].calibrator.arrays()["temperature"],
        misled_artifact.stages[0].calibrator.arrays()["temperature"],
    )
    assert misled.held_out["accuracy"] < honest.held_out["accuracy"]


def temperature_of(artifact: Artifact) -> float:
    calibrator = artifact.stages[-1].calibrator
    assert isinstance(calibrator, Temperature)
    return calibrator.temperature


def test_enough_rows_held_out_calibrate(there: Path) -> None:
    rows = numbered_corpus(8)
    assert sum(row.held_out for row in rows) >= LEAST_HELD_OUT
    train(rows, ALONE, there)
    honest = load_artifact(there)
    train([replace(r, domain="math") if r.held_out and r.domain == "code" else r for r in rows], ALONE, there)
    misled = load_artifact(there)
    assert_same_heads(honest, misled)
    assert temperature_of(misled) > 2 * temperature_of(honest)


def test_else_the_temperature_is_fitted_on_rows_that_a_head_did_not_see(there: Path) -> None:
    # Labels that mean nothing: a head knows by heart those that it saw, and is at a loss over the others.
    rows = [replace(row, domain=("code", "math")[i % 2]) for i, row in enumerate(small_corpus())]
    train(rows, replace(ALONE, head="kernel"), there)
    artifact = load_artifact(there)
    kept = [row for row in rows if not row.held_out]
    logits = artifact.stages[0].head.logits(artifact.stages[0].encoder.encode([row.text for row in kept]))
    truth = np.eye(2)[[("code", "math").index(row.domain) for row in kept]]
    assert temperature_of(artifact) > 3 * Temperature.fit(logits, truth).temperature


def unseen(stage: Stage, vectors: Floats, targets: Floats, before: Floats64 | None) -> Floats:
    """The stage's logits of each row from a head that did not see it; `before` is what the stage before says of the rows."""
    out = np.zeros(targets.shape, dtype=np.float32)
    for seen, others in StratifiedKFold(FOLDS, shuffle=True, random_state=SEED).split(vectors, targets.argmax(axis=1)):
        blind = replace(stage, head=HEADS[stage.head.name].fit(vectors[seen], targets[seen]))
        out[others] = blind.logits(vectors[others], None if before is None else before[others])
    return out


@pytest.mark.parametrize("added", [False, True])
def test_the_second_stage_is_calibrated_on_what_it_says_with_the_first_of_rows_that_neither_saw(
    there: Path, added: bool
) -> None:
    # Every third label is wrong, so that what a head says of a row that it saw is far from what it says of another.
    names = ("code", "math", "bio", "general")
    rows = [replace(row, domain=names[i % 4]) if i % 3 == 0 else row for i, row in enumerate(small_corpus())]
    train([*rows, *zoo()] if added else rows, RECIPE, there)
    artifact, kept = load_artifact(there), [row for row in rows if not row.held_out]
    targets = np.eye(4, dtype=np.float32)[[names.index(row.domain) for row in kept]]
    vectors, before = artifact.vectors(), None
    for stage in artifact.stages:
        places = np.array(vectors.find(stage.encoder.name, [row.text for row in kept]), dtype=np.intp)
        logits = unseen(stage, vectors.table(stage.encoder.name)[places], targets, before)
        assert isinstance(stage.calibrator, Temperature)
        assert stage.calibrator.temperature == pytest.approx(Temperature.fit(logits, targets).temperature, rel=1e-3)
        before = stage.calibrator.probabilities(logits)


def test_without_rows_held_out_there_are_no_figures(there: Path) -> None:
    rows = [*trained_on("code", 6), *trained_on("bio", 6)]
    assert train(rows, RECIPE, there).held_out == {}
    assert load_artifact(there).manifest.rows == 12


@pytest.mark.parametrize("head", sorted(HEADS))
@pytest.mark.parametrize("calibrator", sorted(CALIBRATORS))
def test_a_router_of_two_domains_can_be_trained_with_any_parts(there: Path, head: str, calibrator: str) -> None:
    rows = small_corpus("math", "general")
    manifest = train(rows, replace(RECIPE, head=head, calibrator=calibrator), there)
    assert {(stage.head, stage.calibrator) for stage in manifest.stages} == {(head, calibrator)}
    assert manifest.domains == ("math", "general")
    assert accuracy(load_artifact(there), rows) > 0.9


def test_a_label_in_shares_is_learned_in_shares(there: Path) -> None:
    plain = small_corpus("code", "math")
    shared = [replace(row, alternates=frozenset({"math"})) if row.domain == "code" else row for row in plain]
    heads = []
    for rows in (plain, shared):
        train(rows, ALONE, there)
        heads.append(
            load_artifact(there).stages[0].head.logits(load_artifact(there).stages[0].encoder.encode(["Python"]))
        )
    assert heads[0][0, 0] - heads[0][0, 1] > heads[1][0, 0] - heads[1][0, 1]


def test_a_conversation_is_learned_turn_by_turn(there: Path) -> None:
    turns = ("Fix the loop in my Python function", "and the list")
    talk = Row(text=" ".join(turns), domain="code", kind="followup", turns=turns)
    rows = [row for row in small_corpus() if row.text != turns[0]]
    manifest = train([*rows, talk], RECIPE, there)
    kept = load_artifact(there).vectors()
    assert None not in kept.find("tiny", turns)
    assert kept.find("tiny", [talk.text]) == [None]
    assert manifest.held_out["rows"] == sum(row.held_out for row in rows)


def test_rows_that_differ_only_in_what_is_not_trained_on_make_the_same_router(there: Path) -> None:
    rows = trained_on("code", 5) + trained_on("bio", 5)
    dressed = [
        Row(row.text, row.domain, language="de", style="fix", part="plain", id=str(i)) for i, row in enumerate(rows)
    ]
    assert train(rows, RECIPE, there).heads_file == train(dressed, RECIPE, there).heads_file


def test_the_vectors_of_every_text_are_kept_by_encoder(trained: Artifact) -> None:
    texts = [row.text for row in small_corpus()]
    kept = trained.vectors()
    for stage in trained.stages:
        assert kept.find(stage.encoder.name, texts) == list(range(len(texts)))
        assert kept.table(stage.encoder.name) == pytest.approx(stage.encoder.encode(texts), abs=0.01)


# Domains of one's own


def zoo(count: int = 6) -> list[Row]:
    return [Row(f"What do zebras and lions eat on day {i}?", "zoo") for i in range(count)]


def test_domains_of_ones_own_stand_after_the_built_in_ones(there: Path) -> None:
    rows = [*zoo(), *(replace(row, domain="art") for row in trained_on("general", 4)), *trained_on("bio", 4)]
    manifest = train([*rows[::-1], *trained_on("code", 4)], RECIPE, there)
    assert (manifest.domains, manifest.added) == (("code", "bio", "art", "zoo"), ("art", "zoo"))
    assert [len(stage.detectors) for stage in load_artifact(there).stages] == [2, 2]


def test_an_added_domain_is_found_and_leaves_the_classifier_as_it_was(there: Path) -> None:
    train(small_corpus(), RECIPE, there)
    before = load_artifact(there)
    train([*small_corpus(), *zoo()], RECIPE, there)
    after = load_artifact(there)
    assert_same_heads(before, after)
    for old, new in zip(before.stages, after.stages, strict=True):
        assert np.array_equal(labels(old, small_corpus()), labels(new, small_corpus()))
        found = new.probabilities(["What do lions and zebras eat on day 9?"])[0]
        assert after.manifest.domains[found.argmax()] == "zoo"


def test_what_the_best_stage_finds_of_an_added_domain_teaches_the_cheap_one(there: Path) -> None:
    train([*small_corpus(), *zoo()], RECIPE, there)
    artifact = load_artifact(there)
    vectors, taught = artifact.vectors(), [row.text for row in small_corpus() if not row.held_out]
    corpus, own = (
        [
            vectors.table(s.encoder.name)[np.array(vectors.find(s.encoder.name, texts), dtype=np.intp)]
            for s in artifact.stages
        ]
        for texts in (taught, [row.text for row in zoo()])
    )
    best = Detectors.fit(corpus[1], [own[1]])
    cheap = Detectors.fit(corpus[0], [own[0]], best.found(corpus[1]))
    for stage, expected in zip(artifact.stages, (cheap, best), strict=True):
        assert stage.detectors.weights == pytest.approx(expected.weights, abs=1e-3)


def test_every_example_of_an_added_domain_counts_held_out_or_not(there: Path) -> None:
    rows = zoo(40)
    held_out = [row for row in rows if row.held_out]
    assert len(held_out) >= 2
    train([*small_corpus(), *held_out], RECIPE, there)
    assert load_artifact(there).manifest.held_out["rows"] == sum(row.held_out for row in small_corpus())


def test_examples_that_stand_in_the_corpus_already_still_make_a_domain(there: Path) -> None:
    own = [Row(prompt, "zoo") for prompt in prompts("bio")[:6]]
    train([*small_corpus(), *own], RECIPE, there)
    artifact = load_artifact(there)
    zoo_share = artifact.stages[-1].probabilities([row.text for row in [*own, *small_corpus("code", "math")]])[:, -1]
    assert zoo_share[:6].min() > zoo_share[6:].max()


def test_domains_of_ones_own_alone_are_a_router_too(there: Path) -> None:
    rows = [replace(row, domain={"code": "lab", "bio": "zoo"}[row.domain]) for row in small_corpus("code", "bio")]
    manifest = train(rows, RECIPE, there)
    assert (manifest.domains, manifest.added, manifest.held_out) == (("lab", "zoo"), (), {})
    assert accuracy(load_artifact(there), rows) > 0.9


# What cannot be trained on


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("shared", [frozenset[str](), frozenset({"bio"})])
def test_a_domain_with_too_few_rows_is_refused_by_name(there: Path, count: int, shared: frozenset[str]) -> None:
    held_out = [row for row in small_corpus("bio") if row.held_out]
    code = [replace(row, alternates=shared) for row in trained_on("code", 20)]
    rows = [*code, *trained_on("bio", count), *held_out]
    before = read_manifest(there)
    with pytest.raises(CorpusError, match="the domain 'bio' has too few prompts to train on; give it more examples"):
        train(rows, RECIPE, there)
    assert read_manifest(there) == before


def test_an_added_domain_with_one_example_is_refused_by_name(there: Path) -> None:
    with pytest.raises(CorpusError, match="the domain 'zoo' has too few prompts"):
        train([*small_corpus(), *zoo(1), *zoo(1)], RECIPE, there)


@pytest.mark.parametrize("head", sorted(HEADS))
def test_two_rows_a_domain_are_enough(there: Path, head: str) -> None:
    rows = [*trained_on("code", 2), *trained_on("bio", 9)]
    assert train(rows, replace(RECIPE, head=head), there).rows == 11
    assert load_artifact(there)


@pytest.mark.parametrize("rows", [small_corpus("bio"), zoo(9), [], [*small_corpus("bio"), *zoo()]])
def test_less_than_two_domains_of_a_kind_are_refused(there: Path, rows: list[Row]) -> None:
    with pytest.raises(CorpusError, match="two domains or more"):
        train(rows, RECIPE, there)


def test_training_reports_its_progress(there: Path) -> None:
    seen: Reports = []
    rows = small_corpus("code", "math")
    train(rows, RECIPE, there, lambda *report: seen.append(report))
    assert seen == [
        ("reading the corpus with tiny-static", len(rows), len(rows)),
        ("reading the corpus with tiny", len(rows), len(rows)),
        ("fitting the static stage", 0, 1),
        ("fitting the static stage", 1, 1),
        ("fitting the transformer stage", 0, 1),
        ("fitting the transformer stage", 1, 1),
    ]


# Retraining


def test_retraining_uses_the_encoders_that_are_there_and_leaves_them_untouched(there: Path) -> None:
    def state() -> dict[str, tuple[int, int]]:
        files = [path for path in there.rglob("*") if path.is_file() and path.parent != there]
        return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}

    train(trained_on("code", 4) + trained_on("bio", 4), RECIPE, there)
    before = state()
    train(trained_on("code", 4) + trained_on("math", 4), RECIPE, there)
    assert state() == before != {}
    assert load_artifact(there).manifest.domains == ("code", "math")


COUNTED: list[str] = []


class Counting(FolderEncoder):
    """Remembers in COUNTED what it was given."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        COUNTED.extend(texts)
        return super().encode(texts)


@pytest.fixture
def counting(tmp_path: Path) -> Iterator[Path]:
    """The folder of an encoder of the kind `counting`."""
    COUNTED.clear()
    with ENCODERS.lending("counting", Counting):
        yield encoder_folder(tmp_path / "export", kind="counting", name="counts")


COUNTS = Recipe("counts", "linear", "temperature", None)


def test_a_text_is_read_once_and_never_again(tmp_path: Path, counting: Path) -> None:
    rows, into = small_corpus(), tmp_path / "router"
    train(rows, COUNTS, into, encoders={"counts": counting})
    assert sorted(COUNTED) == sorted(row.text for row in rows)
    COUNTED.clear()
    first = load_artifact(into)
    again = train(rows, COUNTS, into)
    assert COUNTED == []
    assert (again.heads_file, again.vectors_file) == (first.manifest.heads_file, first.manifest.vectors_file)


def test_only_the_examples_of_an_added_domain_are_read(tmp_path: Path, counting: Path) -> None:
    train(small_corpus(), COUNTS, tmp_path / "router", encoders={"counts": counting})
    COUNTED.clear()
    train([*small_corpus(), *zoo()], COUNTS, tmp_path / "router")
    assert [row.text for row in zoo()] == COUNTED


def test_the_vectors_of_another_version_of_an_encoder_are_not_used(tmp_path: Path, counting: Path) -> None:
    train(small_corpus(), COUNTS, tmp_path / "router", encoders={"counts": counting})
    newer = counting.rename(counting.with_name("counts-beef"))
    COUNTED.clear()
    train(small_corpus(), COUNTS, tmp_path / "router", encoders={"counts": newer})
    assert len(COUNTED) == len(small_corpus())


def test_damaged_vectors_are_made_anew(tmp_path: Path, counting: Path) -> None:
    into = tmp_path / "router"
    vectors_file = into / train(small_corpus(), COUNTS, into, encoders={"counts": counting}).vectors_file
    vectors_file.write_bytes(vectors_file.read_bytes()[:-9])
    COUNTED.clear()
    train(small_corpus(), COUNTS, into)
    assert len(COUNTED) == len(small_corpus())
    assert load_artifact(into).vectors().find("counts", [small_corpus()[0].text]) == [0]


def test_the_same_rows_make_the_same_router_from_kept_vectors_and_from_new_ones(there: Path, trained: Artifact) -> None:
    assert train(small_corpus(), RECIPE, there).heads_file == trained.manifest.heads_file
    assert train(small_corpus(), RECIPE, there).heads_file == trained.manifest.heads_file


# Encoders


def test_a_recipe_is_what_the_options_say() -> None:
    options = RouterOptions(encoder="e", static="s", head="kernel", calibrator="isotonic")
    assert Recipe.of(options) == Recipe("e", "kernel", "isotonic", "s")
    assert Recipe.of(options).encoders == (("static", "s"), ("transformer", "e"))
    assert Recipe.of(options.model_copy(update={"static": ""})).encoders == (("transformer", "e"),)


def test_without_a_cheap_encoder_there_is_one_stage(there: Path) -> None:
    (stage,) = train(small_corpus(), ALONE, there).stages
    assert (stage.name, stage.sure, stage.blend) == ("transformer", 0.0, 0.0)


def test_the_packaged_encoder_is_used_first(there: Path, tmp_path: Path, packaged: Artifact) -> None:
    for stage in packaged.manifest.stages:
        found = PACKAGED / stage.encoder_folder
        assert find_encoder(stage.encoder, tmp_path / "nowhere") == found
        assert find_encoder(stage.encoder, there) == found


def test_an_older_version_of_a_packaged_encoder_is_passed_over(there: Path, packaged: Artifact) -> None:
    stage = packaged.manifest.stages[-1]
    older = encoder_folder(there.parent / "older", name=stage.encoder)
    recipe = Recipe(stage.encoder, "linear", "temperature", None)
    assert train(small_corpus(), recipe, there, encoders={stage.encoder: older}).stages[0].encoder_folder == older.name
    assert find_encoder(stage.encoder, there) == PACKAGED / stage.encoder_folder


def test_else_the_encoder_that_lies_there_is_used(there: Path) -> None:
    for stage in read_manifest(there).stages:
        assert find_encoder(stage.encoder, there) == there / stage.encoder_folder


def test_a_damaged_encoder_is_passed_over(there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = Path(shutil.copytree(there, tmp_path / "shipped"))
    monkeypatch.setattr("router.training.train.PACKAGED", shipped)
    assert find_encoder("tiny", there) == shipped / "tiny-cafe"
    (shipped / "tiny-cafe" / "tokenizer.json").write_text("{}", "utf-8")
    assert find_encoder("tiny", there) == there / "tiny-cafe"
    (there / "tiny-cafe" / "tokenizer.json").write_text("{}", "utf-8")
    monkeypatch.setattr("router.training.train.export_encoder", lambda name, into: into / f"{name}-exported")
    assert find_encoder("tiny", there) == there / "tiny-exported"


def test_what_a_training_is_made_of_outlives_another_that_ends_meanwhile(there: Path, counting: Path) -> None:
    others: list[Recipe] = [COUNTS]

    def meanwhile(step: str, *_: object) -> None:
        if step.startswith("reading") and others:
            train(small_corpus(), others.pop(), there, encoders={"counts": counting})

    manifest = train(small_corpus(), RECIPE, there, meanwhile)
    assert others == []
    assert load_artifact(there).manifest == manifest
    assert not (there / counting.name).exists()


def test_an_encoder_of_a_kind_that_nobody_adds_is_refused(tmp_path: Path) -> None:
    folder = encoder_folder(tmp_path / "export", kind="of-tomorrow", name="new")
    with pytest.raises(ArtifactError, match="an encoder of the kind 'of-tomorrow', which no installed package adds"):
        train(small_corpus(), Recipe("new", "linear", "temperature", None), tmp_path, encoders={"new": folder})


@pytest.mark.parametrize("count", [0, 1, CHUNK, CHUNK + 1])
def test_texts_are_encoded_in_order_with_progress(tmp_path: Path, count: int) -> None:
    encoder: Encoder = FolderEncoder(encoder_folder(tmp_path))
    texts = [f"text {i}" for i in range(count)]
    seen: Reports = []
    vectors = encode(encoder, texts, lambda *report: seen.append(report))
    assert vectors.shape == (count, 3)
    assert np.array_equal(vectors, encoder.encode(texts))
    assert [done for _, done, _ in seen] == [min(start + CHUNK, count) for start in range(0, count, CHUNK)]
    assert all(total == count for _, _, total in seen)


RETRAIN = f"""
import sys
from pathlib import Path
from router.dataset import read_rows
from router.experts import RouterOptions
from router.training.train import Recipe, train
corpus = Path({json.dumps(str(CORPUS.relative_to(ROOT)))})
rows = [row for name in ("code", "bio") for row in list(read_rows(corpus / f"{{name}}.jsonl"))[:20]]
train(rows, Recipe.of(RouterOptions()), Path(sys.argv[1]))
print("\\n".join(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""


def test_retraining_needs_no_torch(tmp_path: Path, packaged: Artifact) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RETRAIN, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    imported = set(done.stdout.split())
    assert "sklearn" in imported
    assert imported & {"torch", "sentence_transformers", "transformers", "onnx", "litellm"} == set()
