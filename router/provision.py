"""Finds the trained router that fits an experts.yaml, or trains it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from router.artifact import PACKAGED, read_manifest
from router.dataset import corpus_hash, training_rows
from router.errors import ArtifactError
from router.experts import ExpertsFile
from router.routing import Router

Progress = Callable[[str, int, int], None]


def load_or_train(file: ExpertsFile, state: Path, progress: Progress) -> Router:
    """The router for `file`: one in `state` or the packaged one where it was trained on just this, else a new one in `state`.

    Raises ArtifactError where the one that fits is damaged, and what train raises.
    """
    rows = training_rows(file)
    wanted = (file.router.encoder, file.router.head, file.domain_names, corpus_hash(rows))
    own = state / "router"
    for folder in (own, PACKAGED):
        if not (folder / "manifest.json").exists():
            continue
        manifest = read_manifest(folder)
        if (manifest.encoder, manifest.head, manifest.domains, manifest.corpus_hash) == wanted:
            return Router.load(file, folder)
    from router.training import train

    train(rows, file.router.encoder, own, progress, file.router.head)
    try:
        return Router.load(file, own)
    except ArtifactError as error:
        raise ArtifactError(f"the router was trained but cannot be loaded: {error}") from error
