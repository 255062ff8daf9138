from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression

from router.artifact import PACKAGED, Artifact, load_artifact, read_manifest, save_artifact
from router.calibration import fit_temperature, softmax
from router.classifier import HEADS
from router.dataset import CORPUS, Row, corpus_hash
from router.errors import CorpusError
from router.evaluation import evaluate
from router.export import DEFAULT_ENCODER
from router.training import ALPHA, CHUNK, GAMMA, TRAINERS, C, encode, find_encoder, fit_kernel, fit_linear, train
from tests.fakes.corpora import small_corpus, trained_on
from tests.fakes.encoders import ABOUT, FolderEncoder, encoder_folder

ROOT = Path(__file__).parents[2]
Floats = NDArray[np.float32]


def clouds(classes: int, rows: int = 40, dimensions: int = 12, seed: int = 0) -> tuple[Floats, NDArray[np.int64]]:
    """Overlapping clouds of vectors of length 1, the first class three times as large as the others."""
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.full(rows * (3 if c == 0 else 1), c) for c in range(classes)])
    vectors = random.normal(size=(classes, dimensions))[labels] + random.normal(size=(len(labels), dimensions)) * 1.5
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), labels


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A router trained on the small corpus."""
    folder = tmp_path_factory.mktemp("trained")
    train(small_corpus(), DEFAULT_ENCODER, folder)
    return load_artifact(folder)


# Heads


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_the_linear_head_gives_the_probabilities_that_scikit_learn_gives(classes: int) -> None:
    vectors, labels = clouds(classes)
    model = LogisticRegression(C=C, class_weight="balanced", max_iter=2000).fit(vectors, labels)
    fresh, _ = clouds(classes, seed=1)
    probabilities = softmax(fit_linear(vectors, labels).logits(fresh))
    assert probabilities.shape == (len(fresh), classes)
    assert probabilities == pytest.approx(model.predict_proba(fresh), abs=1e-4)


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_the_kernel_head_gives_the_scores_that_scikit_learn_gives(classes: int) -> None:
    vectors, labels = clouds(classes)
    counts = np.bincount(labels)
    weights = (len(labels) / (classes * counts))[labels]
    model = KernelRidge(kernel="rbf", gamma=GAMMA, alpha=ALPHA)
    model.fit(vectors.astype(np.float16).astype(np.float64), np.eye(classes)[labels], sample_weight=weights)
    fresh, _ = clouds(classes, seed=1)
    assert fit_kernel(vectors, labels).logits(fresh) == pytest.approx(model.predict(fresh.astype(np.float64)), abs=1e-3)


@pytest.mark.parametrize("name", sorted(TRAINERS))
def test_a_small_class_is_not_swamped_by_a_large_one(name: str) -> None:
    vectors, labels = clouds(2, rows=60)
    fresh, truth = clouds(2, rows=200, seed=0)
    predicted = TRAINERS[name](vectors, labels).logits(fresh).argmax(axis=1)
    assert (predicted[truth == 1] == 1).mean() > 0.7
    assert (predicted[truth == 0] == 0).mean() > 0.7


def test_whatever_can_be_trained_can_be_loaded() -> None:
    vectors, labels = clouds(2)
    assert {fit(vectors, labels).name for fit in TRAINERS.values()} == set(TRAINERS) == set(HEADS)


# Training


def test_a_trained_router_tells_the_domains_apart(trained: Artifact) -> None:
    assert evaluate(trained, small_corpus()).accuracy > 0.95


def test_the_manifest_says_what_the_router_was_trained_on(trained: Artifact) -> None:
    rows, manifest = small_corpus(), trained.manifest
    assert manifest.encoder == DEFAULT_ENCODER
    assert manifest.dimensions == trained.encoder.dimensions
    assert manifest.domains == ("code", "math", "bio", "general")
    assert (manifest.rows, manifest.corpus_hash) == (len(rows), corpus_hash(rows))
    assert manifest.head == "kernel"
    assert set(manifest.libraries) == {"numpy", "onnxruntime", "scikit-learn", "tokenizers"}


def test_the_manifest_has_the_figures_of_the_rows_that_were_held_out(trained: Artifact) -> None:
    held_out = [row for row in small_corpus() if row.held_out]
    assert len(held_out) >= 4
    expected = evaluate(trained, held_out).summary()
    assert trained.manifest.held_out["rows"] == len(held_out)
    assert trained.manifest.held_out == pytest.approx(expected, abs=0.05)


def test_every_row_that_is_not_held_out_is_a_landmark_and_no_other(trained: Artifact) -> None:
    kept = sum(not row.held_out for row in small_corpus())
    assert len(trained.head.arrays()["landmarks"]) == kept < len(small_corpus())


@pytest.mark.parametrize("head", sorted(TRAINERS))
def test_rows_held_out_are_not_trained_on(there: Path, head: str) -> None:
    rows = small_corpus()
    mislabelled = [
        replace(row, domain="bio" if row.domain == "code" else "code") if row.held_out else row for row in rows
    ]
    honest = train(rows, "tiny", there, head_name=head)
    honest_arrays = load_artifact(there).head.arrays()
    misled = train(mislabelled, "tiny", there, head_name=head)
    for name, array in load_artifact(there).head.arrays().items():
        assert np.allclose(array, honest_arrays[name], atol=1e-4)
    assert misled.temperature == pytest.approx(honest.temperature, rel=1e-3)
    assert misled.held_out["accuracy"] < honest.held_out["accuracy"]


def test_without_rows_held_out_there_are_no_figures(there: Path) -> None:
    rows = [*trained_on("code", 6), *trained_on("bio", 6)]
    assert train(rows, "tiny", there).held_out == {}
    assert load_artifact(there).manifest.rows == 12


def test_a_router_of_two_domains_can_be_trained_with_either_head(there: Path) -> None:
    rows = small_corpus("math", "general")
    for head in sorted(TRAINERS):
        manifest = train(rows, "tiny", there, head_name=head)
        assert (manifest.head, manifest.domains) == (head, ("math", "general"))
        assert evaluate(load_artifact(there), rows).accuracy > 0.9


def test_domains_of_ones_own_stand_after_the_built_in_ones(there: Path) -> None:
    rows = [*trained_on("general", 4), *(replace(row, domain="zoo") for row in trained_on("bio", 4))]
    assert train([*rows[::-1], *trained_on("code", 4)], "tiny", there).domains == ("code", "general", "zoo")


def test_the_temperature_is_fitted_on_rows_that_the_head_did_not_see(there: Path) -> None:
    # Labels that mean nothing: a head knows by heart those that it saw, and is at a loss over the others.
    rows = [replace(row, domain=("code", "math")[i % 2]) for i, row in enumerate(small_corpus())]
    train(rows, "tiny", there)
    artifact = load_artifact(there)
    kept = [row for row in rows if not row.held_out]
    logits = artifact.head.logits(artifact.encoder.encode([row.text for row in kept]))
    by_heart = fit_temperature(logits, np.array([("code", "math").index(row.domain) for row in kept]))
    assert artifact.manifest.temperature > 3 * by_heart


@pytest.mark.parametrize("count", [0, 1])
def test_a_domain_with_too_few_rows_is_refused_by_name(there: Path, count: int) -> None:
    held_out = [row for row in small_corpus("bio") if row.held_out]
    rows = [*trained_on("code", 5), *trained_on("bio", count), *held_out]
    before = read_manifest(there)
    with pytest.raises(CorpusError, match=f"the domain 'bio' has {count} prompts to train on; give it more examples"):
        train(rows, "tiny", there)
    assert read_manifest(there) == before


@pytest.mark.parametrize("head", sorted(TRAINERS))
def test_two_rows_a_domain_are_enough(there: Path, head: str) -> None:
    rows = [*trained_on("code", 2), *trained_on("bio", 9)]
    assert train(rows, "tiny", there, head_name=head).rows == 11
    assert load_artifact(there)


def test_one_domain_is_refused(there: Path) -> None:
    with pytest.raises(CorpusError, match="two domains or more"):
        train(small_corpus("bio"), "tiny", there)


def test_no_rows_are_refused(there: Path) -> None:
    with pytest.raises(CorpusError):
        train([], "tiny", there)


def test_training_reports_its_progress(there: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    rows = small_corpus("code", "math")
    train(rows, "tiny", there, lambda *report: seen.append(report))
    assert seen == [
        ("embedding the corpus", len(rows), len(rows)),
        ("fitting the classifier", 0, 1),
        ("fitting the classifier", 1, 1),
    ]


def test_retraining_uses_the_encoder_that_is_there_and_leaves_it_untouched(there: Path) -> None:
    train(trained_on("code", 4) + trained_on("bio", 4), "tiny", there)
    folder = there / load_artifact(there).manifest.encoder_folder
    before = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}
    train(trained_on("code", 4) + trained_on("math", 4), "tiny", there)
    assert {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()} == before
    assert load_artifact(there).manifest.domains == ("code", "math")


def test_retraining_repairs_a_router_whose_encoder_was_damaged(tmp_path: Path) -> None:
    rows = trained_on("code", 4) + trained_on("bio", 4)
    train(rows, DEFAULT_ENCODER, tmp_path)
    path = tmp_path / load_artifact(tmp_path).manifest.encoder_folder / "model.onnx"
    path.write_bytes(path.read_bytes()[:1000])
    train(rows, DEFAULT_ENCODER, tmp_path)
    assert load_artifact(tmp_path).encoder.encode(["text"]).shape == (1, 384)


# Encoders


def test_the_encoder_that_lies_there_is_used_first(tmp_path: Path) -> None:
    save_artifact(tmp_path / "router", encoder_folder(tmp_path / "export"), fit_linear(*clouds(2, dimensions=3)), ABOUT)
    assert find_encoder("folder-3", tmp_path / "router") == tmp_path / "router" / "folder-3-cafe"


def test_else_the_packaged_encoder_is_used(tmp_path: Path, packaged: Artifact) -> None:
    found = PACKAGED / packaged.manifest.encoder_folder
    assert find_encoder(DEFAULT_ENCODER, tmp_path) == found
    save_artifact(tmp_path / "router", encoder_folder(tmp_path / "export"), fit_linear(*clouds(2, dimensions=3)), ABOUT)
    assert find_encoder(DEFAULT_ENCODER, tmp_path / "router") == found


def test_a_damaged_encoder_is_passed_over(tmp_path: Path, packaged: Artifact) -> None:
    manifest = train(trained_on("code", 4) + trained_on("bio", 4), DEFAULT_ENCODER, tmp_path)
    assert find_encoder(DEFAULT_ENCODER, tmp_path) == tmp_path / manifest.encoder_folder
    (tmp_path / manifest.encoder_folder / "tokenizer.json").write_text("{}", "utf-8")
    assert find_encoder(DEFAULT_ENCODER, tmp_path) == PACKAGED / packaged.manifest.encoder_folder


@pytest.mark.parametrize("count", [0, 1, CHUNK, CHUNK + 1])
def test_texts_are_encoded_in_order_with_progress(tmp_path: Path, count: int) -> None:
    encoder = FolderEncoder(encoder_folder(tmp_path))
    texts = [f"text {i}" for i in range(count)]
    seen: list[tuple[str, int, int]] = []
    vectors = encode(encoder, texts, lambda *report: seen.append(report))
    assert vectors.shape == (count, 3)
    assert np.array_equal(vectors, encoder.encode(texts))
    assert [done for _, done, _ in seen] == [min(start + CHUNK, count) for start in range(0, count, CHUNK)]
    assert all(total == count for _, _, total in seen)


RETRAIN = f"""
import sys
from pathlib import Path
from router.dataset import read_rows
from router.training import train
rows = [*list(read_rows(Path({str(CORPUS.relative_to(ROOT))!r}) / "code.jsonl"))[:20],
        *list(read_rows(Path({str(CORPUS.relative_to(ROOT))!r}) / "bio.jsonl"))[:20]]
train(rows, {DEFAULT_ENCODER!r}, Path(sys.argv[1]))
print("\\n".join(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""


def test_retraining_needs_no_torch(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RETRAIN, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    imported = set(done.stdout.split())
    assert "sklearn" in imported
    assert imported & {"torch", "sentence_transformers", "transformers", "onnx", "litellm"} == set()


def test_rows_that_differ_only_in_what_is_not_trained_on_make_the_same_router(there: Path) -> None:
    rows = trained_on("code", 5) + trained_on("bio", 5)
    dressed = [
        Row(row.text, row.domain, language="de", style="fix", part="plain", id=str(i)) for i, row in enumerate(rows)
    ]
    assert train(rows, "tiny", there).head_file == train(dressed, "tiny", there).head_file
