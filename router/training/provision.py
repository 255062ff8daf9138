"""Finds the trained router that fits an experts.yaml, or trains it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

from router.artifact import PACKAGED, Manifest, StageManifest, is_of_another_format, read_manifest, whole_encoder
from router.dataset import Row, corpus_hash, training_rows
from router.errors import ArtifactError
from router.experts import ExpertsFile
from router.routing import Router
from router.training.installed import installed_name

Progress = Callable[[str, int, int], None]
ROUTER = "router"  # the folder, in that of the state, of what was trained here


def lessons(file: ExpertsFile) -> Hashable:
    """All of `file` that a trained router depends on: files with the same are served by the same one."""
    options = file.router
    parts = options.static, options.encoder, options.head, options.calibrator
    return parts, file.domain_names, tuple(sorted((name, domain.examples) for name, domain in file.domains.items()))


def load_or_train(file: ExpertsFile, state: Path, progress: Progress) -> Router:
    """The router for `file`: one in `state` or the packaged one where it was trained on just this, else a new one in `state`.

    One in `state` whose encoder is an older version of one that this package ships, or another adds, is made anew.

    Raises ArtifactError where the router that fits is damaged, and what train raises.
    """
    rows = training_rows(file)
    if (folder := fitting(file, rows, state)) is not None:
        return Router.load(file, folder)
    own = state / ROUTER
    from router.training.train import Recipe, train

    train(rows, Recipe.of(file.router), own, progress)
    try:
        return Router.load(file, own)
    except ArtifactError as error:
        raise ArtifactError(f"the router was trained but cannot be loaded: {error}") from error


def fitting(file: ExpertsFile, rows: Sequence[Row], state: Path) -> Path | None:
    """The folder of a router that was trained on `rows` as `file` wants it, None where there is none. Raises ArtifactError."""
    options = file.router
    encoders = tuple(name for name in (options.static, options.encoder) if name)
    wanted = (encoders, {options.head}, {options.calibrator}, file.domain_names, corpus_hash(rows))
    own = state / ROUTER
    for folder in (own, PACKAGED):
        if not (folder / "manifest.json").exists():
            continue
        if folder == own and is_of_another_format(folder):
            continue  # what an older version of this package left is made anew
        manifest = read_manifest(folder)
        stages = manifest.stages
        parts = (tuple(s.encoder for s in stages), {s.head for s in stages}, {s.calibrator for s in stages})
        if (*parts, manifest.domains, manifest.corpus_hash) == wanted and not (folder == own and _outdated(manifest)):
            return folder
    return None


def _outdated(manifest: Manifest) -> bool:
    """Whether an encoder of the same name and other content is to be had: folders are named by their content."""
    return any(stage.encoder_folder != _current(stage) for stage in manifest.stages)


def _current(stage: StageManifest) -> str:
    """The folder of the stage's encoder in a router that is made now."""
    shipped = whole_encoder(PACKAGED, stage.encoder)
    return shipped.name if shipped else installed_name(stage.encoder) or stage.encoder_folder
