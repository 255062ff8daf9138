"""Fits the classifier with scikit-learn on the encoder's vectors. Needs no torch unless an encoder must be exported first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from router.artifact import PACKAGED, Manifest, damaged_files, read_manifest, save_artifact
from router.calibration import fit_temperature
from router.classifier import Head, KernelHead, LinearHead
from router.dataset import Row, corpus_hash, domains_of
from router.encoder import ENCODERS, Encoder
from router.errors import ArtifactError, CorpusError
from router.export import export_encoder
from router.measures import score

FOLDS = 5
SEED = 0
C = 10.0  # of the linear head
# Of the kernel head: where cross-validation on the corpus is at its best (docs/routing.md).
GAMMA = 1.0
ALPHA = 0.1
CHUNK = 64  # rows encoded between two reports of progress

Progress = Callable[[str, int, int], None]
Floats = NDArray[np.float32]


def silent(step: str, done: int, total: int) -> None:
    """A Progress that shows nothing."""


def train(
    rows: Sequence[Row], encoder_name: str, into: Path, progress: Progress = silent, head_name: str = "kernel"
) -> Manifest:
    """Train a router with the head `head_name` of TRAINERS on `rows` and save it in `into`.

    Rows that are held out (Row.held_out) are measured and not trained on. Raises CorpusError where a domain has too few
    rows, MissingExtraError where the encoder has to be exported and the `train` extra is not installed.
    """
    folder = find_encoder(encoder_name, into, progress)
    encoder = ENCODERS["transformer"](folder)
    domains = domains_of(rows)
    kept = [row for row in rows if not row.held_out]
    measured = [row for row in rows if row.held_out]
    vectors = encode(encoder, [row.text for row in [*kept, *measured]], progress)
    train_vectors, held_vectors = vectors[: len(kept)], vectors[len(kept) :]
    labels = np.array([domains.index(row.domain) for row in kept])
    _check_sizes(labels, domains)
    progress("fitting the classifier", 0, 1)
    fit = TRAINERS[head_name]
    head = fit(train_vectors, labels)
    temperature = fit_temperature(_out_of_fold_logits(fit, train_vectors, labels), labels)
    progress("fitting the classifier", 1, 1)
    about = {
        "encoder": encoder.name,
        "dimensions": encoder.dimensions,
        "domains": domains,
        "temperature": temperature,
        "corpus_hash": corpus_hash(rows),
        "rows": len(rows),
        "held_out": score(measured, domains, head.logits(held_vectors) / temperature).summary() if measured else {},
        "libraries": {name: version(name) for name in ("numpy", "onnxruntime", "scikit-learn", "tokenizers")},
    }
    return save_artifact(into, folder, head, about)


def find_encoder(name: str, into: Path, progress: Progress = silent) -> Path:
    """The exported encoder `name`: the one in `into`, else the one that the package ships, else exported now."""
    for folder in (into, PACKAGED):
        try:
            manifest = read_manifest(folder)
        except ArtifactError:
            continue
        if manifest.encoder == name and not damaged_files(folder, manifest, manifest.encoder_folder):
            return folder / manifest.encoder_folder
    progress(f"exporting the encoder {name}", 0, 1)
    folder = export_encoder(name, into)
    progress(f"exporting the encoder {name}", 1, 1)
    return folder


def encode(encoder: Encoder, texts: Sequence[str], progress: Progress = silent) -> Floats:
    """The vectors of `texts`, shape (len(texts), dimensions), with progress as it goes."""
    parts = [np.zeros((0, encoder.dimensions), dtype=np.float32)]
    for start in range(0, len(texts), CHUNK):
        parts.append(encoder.encode(texts[start : start + CHUNK]))
        progress("embedding the corpus", min(start + CHUNK, len(texts)), len(texts))
    return np.concatenate(parts)


def fit_linear(vectors: Floats, labels: NDArray[np.integer]) -> LinearHead:
    """A multinomial logistic regression, its classes weighted alike, as a LinearHead with the same probabilities."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=C, class_weight="balanced", max_iter=2000).fit(vectors, labels)
    weights, bias = model.coef_, model.intercept_
    if len(weights) == 1:  # two classes: scikit-learn keeps one row, the logit of the second against the first
        weights, bias = np.vstack([-weights / 2, weights / 2]), np.concatenate([-bias / 2, bias / 2])
    return LinearHead(weights.astype(np.float32), bias.astype(np.float32))


def fit_kernel(vectors: Floats, labels: NDArray[np.integer]) -> KernelHead:
    """A Gaussian kernel ridge regression on one-hot labels, its classes weighted alike, every row a landmark."""
    from sklearn.kernel_ridge import KernelRidge

    landmarks = vectors.astype(np.float16)
    counts = np.bincount(labels)
    balanced = (len(labels) / (len(counts) * counts))[labels]
    model = KernelRidge(kernel="rbf", gamma=GAMMA, alpha=ALPHA)
    model.fit(landmarks.astype(np.float64), np.eye(len(counts))[labels], sample_weight=balanced)
    return KernelHead(landmarks, model.dual_coef_.astype(np.float32), GAMMA)


TRAINERS: dict[str, Callable[[Floats, NDArray[np.integer]], Head]] = {"kernel": fit_kernel, "linear": fit_linear}


def _out_of_fold_logits(
    fit: Callable[[Floats, NDArray[np.integer]], Head], vectors: Floats, labels: NDArray[np.integer]
) -> Floats:
    """Logits of every row from a head that did not see it: what a temperature may be fitted on."""
    from sklearn.model_selection import StratifiedKFold

    out = np.zeros((len(labels), labels.max() + 1), dtype=np.float32)
    folds = min(FOLDS, int(np.bincount(labels).min()))
    for seen, unseen in StratifiedKFold(folds, shuffle=True, random_state=SEED).split(vectors, labels):
        out[unseen] = fit(vectors[seen], labels[seen]).logits(vectors[unseen])
    return out


def _check_sizes(labels: NDArray[np.integer], domains: Sequence[str]) -> None:
    if len(domains) < 2:
        raise CorpusError("a router chooses between two domains or more; experts.yaml names one")
    for i, domain in enumerate(domains):
        if (count := int((labels == i).sum())) < 2:
            raise CorpusError(f"the domain {domain!r} has {count} prompts to train on; give it more examples")
