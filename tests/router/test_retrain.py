"""The committed router is what training on the committed corpus makes: nobody edited one without the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from router.artifact import PACKAGED, Artifact, load_artifact
from router.dataset import Row, corpus_hash, domains_of, load_corpus
from router.experts import RouterOptions
from router.measures import score
from router.training import encode, train

LEAST_ACCURACY = 0.8
LEAST_AGREEMENT = 0.995


@pytest.fixture(scope="module")
def corpus() -> list[Row]:
    return load_corpus()


def test_the_committed_router_was_trained_on_the_committed_corpus(packaged: Artifact, corpus: list[Row]) -> None:
    assert packaged.manifest.corpus_hash == corpus_hash(corpus)
    assert packaged.manifest.rows == len(corpus)
    assert packaged.manifest.domains == domains_of(corpus)
    assert packaged.manifest.held_out["rows"] == sum(row.held_out for row in corpus)


def test_the_committed_router_is_the_one_that_experts_files_ask_for(packaged: Artifact) -> None:
    assert (packaged.manifest.encoder, packaged.manifest.head) == (RouterOptions().encoder, RouterOptions().head)


@pytest.mark.timeout(600)
def test_training_afresh_finds_the_labels_of_the_committed_router(
    tmp_path: Path, packaged: Artifact, corpus: list[Row]
) -> None:
    manifest = train(corpus, packaged.manifest.encoder, tmp_path, head_name=packaged.manifest.head)
    fresh = load_artifact(tmp_path)
    held_out = [row for row in corpus if row.held_out]
    vectors = encode(packaged.encoder, [row.text for row in held_out])
    committed_labels = packaged.head.logits(vectors).argmax(axis=1)
    fresh_labels = fresh.head.logits(vectors).argmax(axis=1)
    assert np.mean(fresh_labels == committed_labels) >= LEAST_AGREEMENT
    assert manifest.temperature == pytest.approx(packaged.manifest.temperature, rel=0.05)
    assert manifest.held_out == pytest.approx(packaged.manifest.held_out, abs=0.02)

    report = score(held_out, manifest.domains, packaged.head.logits(vectors) / packaged.manifest.temperature)
    assert report.accuracy == pytest.approx(packaged.manifest.held_out["accuracy"], abs=0.02)
    assert report.accuracy >= LEAST_ACCURACY
    assert fresh.manifest.encoder_folder == packaged.manifest.encoder_folder
    assert (PACKAGED / packaged.manifest.head_file).is_file()
