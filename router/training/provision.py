"""Finds the trained router that fits an experts.yaml, or trains it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from router.artifact import PACKAGED, Manifest, is_of_another_format, read_manifest, whole_encoder
from router.calibration import CALIBRATORS
from router.classifier import HEADS
from router.dataset import corpus_hash, training_rows
from router.errors import ArtifactError, RouterError
from router.experts import ExpertsFile
from router.routing import Router

Progress = Callable[[str, int, int], None]


def load_or_train(file: ExpertsFile, state: Path, progress: Progress) -> Router:
    """The router for `file`: one in `state` or the packaged one where it was trained on just this, else a new one in `state`.

    One in `state` whose encoder is an older version of one that the package ships is made anew.

    Raises RouterError for an unknown head or calibrator, ArtifactError where the router that fits is damaged, and what
    train raises.
    """
    check_names(file)
    rows = training_rows(file)
    options = file.router
    encoders = tuple(name for name in (options.static, options.encoder) if name)
    wanted = (encoders, {options.head}, {options.calibrator}, file.domain_names, corpus_hash(rows))
    own = state / "router"
    for folder in (own, PACKAGED):
        if not (folder / "manifest.json").exists():
            continue
        if folder == own and is_of_another_format(folder):
            continue  # what an older version of this package left is made anew
        manifest = read_manifest(folder)
        stages = manifest.stages
        parts = (tuple(s.encoder for s in stages), {s.head for s in stages}, {s.calibrator for s in stages})
        if (*parts, manifest.domains, manifest.corpus_hash) != wanted or (folder == own and _outdated(manifest)):
            continue
        return Router.load(file, folder)
    from router.training.train import Recipe, train

    train(rows, Recipe.of(options), own, progress)
    try:
        return Router.load(file, own)
    except ArtifactError as error:
        raise ArtifactError(f"the router was trained but cannot be loaded: {error}") from error


def _outdated(manifest: Manifest) -> bool:
    """Whether the package ships an encoder of the same name and other content: folders are named by their content."""
    shipped = ((stage.encoder_folder, whole_encoder(PACKAGED, stage.encoder)) for stage in manifest.stages)
    return any(folder is not None and folder.name != kept for kept, folder in shipped)


def check_names(file: ExpertsFile) -> None:
    """Raises RouterError where the file names a head or a calibrator that nobody adds."""
    for key, name, known in (("head", file.router.head, HEADS), ("calibrator", file.router.calibrator, CALIBRATORS)):
        if name not in known:
            raise RouterError(f"router.{key}: there is no {key} {name!r}; known are {', '.join(known)}")
