"""The committed router is what training on the committed corpus makes: nobody edited one without the other.

The encoders take an hour to make (test_encoders.py makes small ones); from their vectors on, everything is made again here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from router.artifact import Artifact, load_artifact
from router.dataset import Row, corpus_hash, domains_of, examples_of, load_corpus
from router.experts import RouterOptions
from router.measuring.measures import score_probabilities
from router.training.train import BLEND, SURE, Recipe, train
from router.vectors import Vectors, key_of

LEAST_ACCURACY = 0.8
LEAST_AGREEMENT = 0.995
SAMPLE = 200


@pytest.fixture(scope="module")
def corpus() -> list[Row]:
    return load_corpus()


@pytest.fixture(scope="module")
def vectors(packaged: Artifact) -> Vectors:
    return packaged.vectors()


def measured(corpus: list[Row]) -> list[Row]:
    """The rows that the manifest's figures are about."""
    return [row for row in corpus if row.held_out and len(row.turns) < 2]


def vectors_of(vectors: Vectors, encoder: str, texts: list[str]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """The committed vectors of `texts`."""
    places = [place for place in vectors.find(encoder, texts) if place is not None]
    assert len(places) == len(texts)
    return np.asarray(vectors.table(encoder)[places])


def test_the_committed_router_was_trained_on_the_committed_corpus(packaged: Artifact, corpus: list[Row]) -> None:
    assert packaged.manifest.corpus_hash == corpus_hash(corpus)
    assert packaged.manifest.rows == len(corpus)
    assert packaged.manifest.domains == domains_of(corpus)
    assert packaged.manifest.added == ()
    assert packaged.manifest.held_out["rows"] == len(measured(corpus))


def test_the_committed_vectors_are_those_of_the_committed_corpus(corpus: list[Row], vectors: Vectors) -> None:
    texts = {example.text for row in corpus for example in examples_of(row)}
    assert set(vectors.keys.tolist()) == {key_of(text) for text in texts}
    assert len(vectors.keys) == len(texts)


def test_the_committed_router_is_the_one_that_experts_files_ask_for(packaged: Artifact) -> None:
    options, stages = RouterOptions(), packaged.manifest.stages
    assert [(stage.name, stage.encoder, stage.sure, stage.blend) for stage in stages] == [
        ("static", options.static, SURE, 0.0),
        ("transformer", options.encoder, 0.0, BLEND),
    ]
    assert {(stage.head, stage.calibrator) for stage in stages} == {(options.head, options.calibrator)}


def test_the_committed_encoders_make_the_committed_vectors(
    packaged: Artifact, corpus: list[Row], vectors: Vectors
) -> None:
    texts = [row.text for row in corpus if len(row.turns) < 2]
    texts = texts[:: len(texts) // SAMPLE][:SAMPLE]
    assert len(texts) == SAMPLE
    for stage in packaged.stages:
        fresh, kept = stage.encoder.encode(texts), vectors_of(vectors, stage.encoder.name, texts)
        cosines = (fresh * kept).sum(axis=1) / np.linalg.norm(fresh, axis=1) / np.linalg.norm(kept, axis=1)
        assert np.median(cosines) > 0.999
        # The transformer computes with 8-bit integers, which processors without the instructions made for them (VNNI) round
        # otherwise: on one of those 8 of 200 texts came out below 0.999, the farthest at 0.994.
        assert cosines.min() > 0.99, texts[int(cosines.argmin())]


@pytest.mark.timeout(600)
def test_training_afresh_finds_the_labels_of_the_committed_router(
    tmp_path: Path, packaged: Artifact, corpus: list[Row], vectors: Vectors
) -> None:
    read: list[str] = []
    manifest = train(corpus, Recipe.of(RouterOptions()), tmp_path, lambda step, *_: read.append(step))
    assert not [step for step in read if step.startswith("reading")]  # every vector was there
    fresh, rows = load_artifact(tmp_path), measured(corpus)
    found, committed = None, None
    for ours, theirs in zip(fresh.stages, packaged.stages, strict=True):
        held = vectors_of(vectors, theirs.encoder.name, [row.text for row in rows])
        found, committed = ours.of_vectors(held, found), theirs.of_vectors(held, committed)
        assert np.mean(found.argmax(axis=1) == committed.argmax(axis=1)) >= LEAST_AGREEMENT
        assert np.abs(found - committed).mean() < 0.01
    assert manifest.held_out == pytest.approx(packaged.manifest.held_out, abs=0.02)

    assert committed is not None
    report = score_probabilities(rows, manifest.domains, committed)
    assert report.accuracy == pytest.approx(packaged.manifest.held_out["accuracy"], abs=0.02)
    assert report.accuracy >= LEAST_ACCURACY
    assert [stage.encoder_folder for stage in fresh.manifest.stages] == [
        stage.encoder_folder for stage in packaged.manifest.stages
    ]
