"""Fits the heads with scikit-learn on the encoders' vectors. Needs no torch unless an encoder must be exported first.

The vectors of texts that were seen before come from the artifact, so that adding a domain takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from router.artifact import PACKAGED, Manifest, kind_of, read_manifest, read_vectors, save_artifact, whole_encoder
from router.calibration import CALIBRATORS, Temperature
from router.cascade import FLUENT, Probabilities, Stage
from router.classifier import HEADS
from router.dataset import Example, Row, corpus_hash, domains_of, examples_of
from router.decision import Stage as StageName
from router.detectors import Detectors
from router.encoder import ENCODERS, Encoder
from router.errors import ArtifactError, CorpusError, ExtensionError
from router.experts import BUILT_IN_DOMAINS, RouterOptions
from router.holds import Hold
from router.measuring.measures import score
from router.training.export import export_encoder
from router.training.installed import installed_encoder
from router.vectors import Vectors

FOLDS = 5
SEED = 0
LEAST_HELD_OUT = 50  # fewer, and the calibrators are fitted on scores out of fold
# The cheap stage answers where it is at least this confident, so that well over half of ordinary prompts stay with it.
# docs/routing.md has what other values cost.
SURE = 0.9
BLEND = 0.15  # how much the cheap stage counts where the transformer answers: what held-out rows gain most by
UNDISPUTED = 0.99  # the share that a domain has of such a label
CHUNK = 64  # texts encoded between two reports of progress

Progress = Callable[[str, int, int], None]
Floats = NDArray[np.float32]
Floats64 = NDArray[np.float64]


def silent(step: str, done: int, total: int) -> None:
    """A Progress that shows nothing."""


@dataclass(frozen=True)
class Recipe:
    """What a router is made of: the names of its encoder, head and calibrator, and of the cheap stage's encoder, if any."""

    encoder: str
    head: str
    calibrator: str
    cheap: str | None

    @staticmethod
    def of(options: RouterOptions) -> Recipe:
        return Recipe(options.encoder, options.head, options.calibrator, options.static or None)

    @property
    def encoders(self) -> tuple[tuple[StageName, str], ...]:
        """Each stage and its encoder, the cheapest first."""
        best: tuple[StageName, str] = ("transformer", self.encoder)
        return (("static", self.cheap), best) if self.cheap else (best,)


def train(
    rows: Sequence[Row],
    recipe: Recipe,
    into: Path,
    progress: Progress = silent,
    encoders: Mapping[str, Path] = MappingProxyType({}),
) -> Manifest:
    """Train a router on `rows` and save it in `into`. `encoders` are the folders of those that were made just now, by name.

    Rows that are held out (Row.held_out) are measured and calibrated on, and not trained on. Raises CorpusError where a domain
    has too few rows, MissingExtraError where the encoder has to be exported and the `train` extra is not installed.
    """
    domains = domains_of(rows)
    known = tuple(d for d in domains if d in BUILT_IN_DOMAINS) or domains
    added = tuple(d for d in domains if d not in known)
    if len(known) < 2:
        raise CorpusError("a router chooses between two domains or more; there are no prompts of two")
    lessons = _Lessons.of(rows, known, added)
    _check_sizes(lessons, known)
    stages: list[tuple[Stage, Path]] = []
    holds: list[Hold] = []  # another training may end meanwhile, whose router has other encoders
    vectors: dict[str, Floats] = {}
    made: list[tuple[StageName, Encoder, Path]] = []
    for name, encoder_name in recipe.encoders:
        folder = encoders.get(encoder_name) or find_encoder(encoder_name, into, progress)
        holds.append(Hold([folder]))
        made.append((name, _encoder(folder, encoder_name), folder))
    for _, encoder, folder in made:
        vectors[encoder.name] = _vectors(encoder, folder.name, lessons.texts, into, progress)
    detectors = _detectors([vectors[encoder.name] for _, encoder, _ in made], lessons)
    said: Probabilities | None = None
    for (name, encoder, folder), own in zip(made, detectors, strict=True):
        progress(f"fitting the {name} stage", 0, 1)
        fitted = _fitted(name, encoder, vectors[encoder.name], own, said, lessons, recipe)
        stage, said = _calibrated(fitted, vectors[encoder.name], said, lessons, recipe)
        stages.append((stage, folder))
        progress(f"fitting the {name} stage", 1, 1)
    about = {
        "domains": domains,
        "added": added,
        "corpus_hash": corpus_hash(rows),
        "rows": len(rows),
        "held_out": _held_out(rows, domains, dict(zip(lessons.texts, said if said is not None else (), strict=True))),
        "libraries": {name: version(name) for name in ("numpy", "onnxruntime", "scikit-learn", "tokenizers")},
    }
    return save_artifact(into, stages, Vectors.of(lessons.texts, vectors), about)


@dataclass(frozen=True)
class _Lessons:
    """Every text to learn from, once. `targets` (texts, domains of the head); `fluent` (texts,) where a cheap stage may answer;
    `trained`, `held` and, of each added domain, `examples` are the texts' places."""

    texts: list[str]
    targets: Floats
    fluent: NDArray[np.bool_]
    trained: NDArray[np.intp]
    held: NDArray[np.intp]
    examples: dict[str, NDArray[np.intp]]

    @staticmethod
    def of(rows: Sequence[Row], known: Sequence[str], added: Sequence[str]) -> _Lessons:
        unique: dict[str, Example] = {}
        named: dict[str, set[str]] = {domain: set() for domain in added}
        for row in rows:
            for example in examples_of(row):
                unique.setdefault(example.text, example)
                if row.domain in named:
                    named[row.domain].add(example.text)
        found = list(unique.values())
        targets = np.array([example.target(known) for example in found], dtype=np.float32)
        inside = targets.sum(axis=1) > 0.5
        held = np.array([example.held_out for example in found])
        return _Lessons(
            list(unique),
            targets / np.maximum(targets.sum(axis=1, keepdims=True), 1e-6),
            np.array([example.language in FLUENT for example in found]),
            np.flatnonzero(inside & ~held),
            np.flatnonzero(inside & held),
            # Of ten examples that somebody wrote, none can be spared for measuring; one may stand in the corpus as well.
            {
                d: np.array([i for i, text in enumerate(unique) if text in texts], dtype=np.intp)
                for d, texts in named.items()
            },
        )


def _fitted(
    name: StageName,
    encoder: Encoder,
    vectors: Floats,
    detectors: Detectors,
    before: Probabilities | None,
    lessons: _Lessons,
    recipe: Recipe,
) -> Stage:
    """A stage that is not calibrated yet; `before` is what the stage before it says of every text."""
    head = HEADS[recipe.head].fit(vectors[lessons.trained], lessons.targets[lessons.trained])
    _check_name("head", recipe.head, head.name)
    return Stage(
        name,
        encoder,
        head,
        Temperature(1.0),
        detectors,
        SURE if name == "static" else 0.0,
        BLEND if before is not None else 0.0,
    )


def _calibrated(
    stage: Stage, vectors: Floats, before: Probabilities | None, lessons: _Lessons, recipe: Recipe
) -> tuple[Stage, Probabilities]:
    """The stage with its calibrator, and what it says of every text, as `before` is what the stage before it says.

    Where the calibrator is fitted out of fold, so is what is said of the texts that the head was trained on: the next stage
    is then calibrated on what it will hear of a text that nobody has seen.
    """
    held, trained, targets = lessons.held, lessons.trained, lessons.targets
    fit = CALIBRATORS[recipe.calibrator].fit
    # Rows whose label nobody disputes: where two labels are right, how sure one should be of the first is anybody's guess.
    # And of a cheap stage those that it may answer.
    measured = held[(targets[held].max(axis=1) > UNDISPUTED) & (lessons.fluent[held] | (stage.sure == 0))]
    if len(measured) >= LEAST_HELD_OUT:
        logits = stage.logits(vectors[measured], _at(measured, before))
        stage = replace(stage, calibrator=fit(logits, targets[measured]))
        _check_name("calibrator", recipe.calibrator, stage.calibrator.name)
        return stage, stage.of_vectors(vectors, before)
    logits = _out_of_fold(stage, recipe.head, vectors[trained], targets[trained], _at(trained, before))
    stage = replace(stage, calibrator=fit(logits, targets[trained]))
    _check_name("calibrator", recipe.calibrator, stage.calibrator.name)
    said = stage.of_vectors(vectors, before)
    said[trained] = stage.detectors.extended(stage.calibrator.probabilities(logits), vectors[trained])
    return stage, said


def _at(places: NDArray[np.intp], said: Probabilities | None) -> Probabilities | None:
    return None if said is None else said[places]


def _detectors(vectors: Sequence[Floats], lessons: _Lessons) -> list[Detectors]:
    """Those of every stage; `vectors` are the stages', the cheapest first. What the best finds teaches the others."""
    fitted: list[Detectors] = []
    found: Probabilities | None = None
    for own in reversed(vectors):
        corpus = own[lessons.trained]
        fitted.insert(0, Detectors.fit(corpus, [own[places] for places in lessons.examples.values()], found))
        found = fitted[0].found(corpus) if found is None else found
    return fitted


def _out_of_fold(stage: Stage, head: str, vectors: Floats, targets: Floats, before: Probabilities | None) -> Floats:
    """The stage's logits of every row, from a head that did not see it: shape (rows, domains of the head)."""
    from sklearn.model_selection import StratifiedKFold

    labels = targets.argmax(axis=1)
    out = np.zeros(targets.shape, dtype=np.float32)
    folds = min(FOLDS, int(np.bincount(labels).min()))
    for seen, unseen in StratifiedKFold(folds, shuffle=True, random_state=SEED).split(vectors, labels):
        blind = replace(stage, head=HEADS[head].fit(vectors[seen], targets[seen]))
        out[unseen] = blind.logits(vectors[unseen], _at(unseen, before))
    return out


def _held_out(rows: Sequence[Row], domains: Sequence[str], said: Mapping[str, Floats64]) -> dict[str, float]:
    """The best stage's figures on the rows that are held out, read by themselves; `said` are the probabilities of each text."""
    measured = [row for row in rows if row.held_out and len(row.turns) < 2 and row.domain in BUILT_IN_DOMAINS]
    if not measured:
        return {}
    probabilities = np.stack([said[row.text] for row in measured])
    return score(measured, domains, np.log(np.maximum(probabilities, 1e-12))).summary()


def _encoder(folder: Path, name: str) -> Encoder:
    kind = kind_of(folder)
    if kind not in ENCODERS:
        raise ArtifactError(f"{folder} holds an encoder of the kind {kind!r}, which no installed package adds")
    encoder = ENCODERS[kind](folder)
    _check_name("encoder", name, encoder.name)
    return encoder


def _check_name(part: str, name: str, own: str) -> None:
    """The artifact keeps what a part calls itself, and is loaded by it."""
    if own != name:
        raise ExtensionError(
            f"the {part} {name!r} calls itself {own!r}; its name has to be the one that it is added under"
        )


def _vectors(encoder: Encoder, folder_name: str, texts: Sequence[str], into: Path, progress: Progress) -> Floats:
    """The vectors of `texts`, as 8 bits hold them, shape (len(texts), dimensions): those of an earlier training, or made now.

    `folder_name` tells this encoder from another version of it, whose vectors would be of no use.
    """
    out = np.zeros((len(texts), encoder.dimensions), dtype=np.float32)
    missing = list(range(len(texts)))
    for folder in (into, PACKAGED):
        try:
            manifest = read_manifest(folder)
            if all(stage.encoder_folder != folder_name for stage in manifest.stages):
                continue
            kept = read_vectors(folder, manifest)
        except ArtifactError:
            continue
        places = kept.find(encoder.name, [texts[i] for i in missing])
        found = [(i, place) for i, place in zip(missing, places, strict=True) if place is not None]
        if found:
            here, there = map(list, zip(*found, strict=True))
            out[here] = kept.table(encoder.name)[there]
        missing = [i for i, place in zip(missing, places, strict=True) if place is None]
    if missing:
        new = [texts[i] for i in missing]
        out[missing] = Vectors.of(new, {encoder.name: encode(encoder, new, progress)}).table(encoder.name)
    return out


def find_encoder(name: str, into: Path, progress: Progress = silent) -> Path:
    """The folder of the encoder `name`: the one that this package ships, else of one that another package adds, else the one
    in `into`, else exported now.

    One of that name in `into` may be what an older version of a package shipped or added.
    """
    kept = whole_encoder(PACKAGED, name) or installed_encoder(name, into) or whole_encoder(into, name)
    if kept:
        return kept
    progress(f"exporting the encoder {name}", 0, 1)
    folder = export_encoder(name, into)
    progress(f"exporting the encoder {name}", 1, 1)
    return folder


def encode(encoder: Encoder, texts: Sequence[str], progress: Progress = silent) -> Floats:
    """The vectors of `texts`, shape (len(texts), dimensions), with progress as it goes."""
    parts = [np.zeros((0, encoder.dimensions), dtype=np.float32)]
    for start in range(0, len(texts), CHUNK):
        chunk = texts[start : start + CHUNK]
        parts.append(encoder.encode(chunk))
        if parts[-1].shape != (len(chunk), encoder.dimensions):
            wanted = f"{len(chunk)} texts and {encoder.dimensions} dimensions"
            raise ExtensionError(f"the encoder {encoder.name} made vectors of shape {parts[-1].shape} for {wanted}")
        progress(f"reading the corpus with {encoder.name}", min(start + CHUNK, len(texts)), len(texts))
    return np.concatenate(parts)


def _check_sizes(lessons: _Lessons, domains: Sequence[str]) -> None:
    labels = lessons.targets[lessons.trained].argmax(axis=1)
    sizes = dict(zip(domains, np.bincount(labels, minlength=len(domains)).tolist(), strict=True))
    for domain, size in (sizes | {d: len(places) for d, places in lessons.examples.items()}).items():
        if size < 2:
            raise CorpusError(f"the domain {domain!r} has too few prompts to train on; give it more examples")
