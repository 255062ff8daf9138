"""A router for an experts.yaml that is only asked about: what a running gateway has trained is read, and left as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

from router.dataset import training_rows
from router.experts import ExpertsFile
from router.routing import Router
from router.training.provision import ROUTER, Progress, fitting, load_or_train


def trial_router(file: ExpertsFile, state: Path, scratch: Path, progress: Progress) -> Router:
    """The router for `file`: the one in `state` or the packaged one where it fits, else one that is trained in `scratch`.

    `scratch` is a folder that nobody else writes to, and has to stay while the router is used. Raises as load_or_train does.
    """
    found = fitting(file, training_rows(file), state)
    if found is not None:
        return Router.load(file, found)
    _lend(state / ROUTER, scratch / ROUTER)
    return load_or_train(file, scratch, progress)


def _lend(there: Path, here: Path) -> None:
    """A copy of what was trained there: its vectors need not be made again, nor its encoders exported."""
    if not there.is_dir() or here.exists():
        return
    try:
        shutil.copytree(there, here)
    except OSError:  # a training there ends just now and tidies up, or it may not be read; then all is made here
        shutil.rmtree(here, ignore_errors=True)
