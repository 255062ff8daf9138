"""Hold: how a process says that it may still load a file or a folder, so that no other process removes it.

A hold is a shared lock of the system on the thing itself. Nothing is written, so that a folder which is read-only can be held,
and the system lets go when the process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import weakref
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


class Hold:
    """Keeps those of `paths` that are there from being removed by `remove_unheld`, for as long as the hold is referred to.

    Where the file system has no locks it does nothing, and neither does `remove_unheld`.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        descriptors: list[int] = []
        weakref.finalize(self, _close, descriptors)
        for path in paths:
            with suppress(OSError):
                descriptors.append(os.open(path, os.O_RDONLY))
                fcntl.flock(descriptors[-1], fcntl.LOCK_SH)


def remove_unheld(path: Path) -> None:
    """Remove a file or a folder, unless any process, this one too, holds it. What cannot be removed stays."""
    descriptors: list[int] = []
    with suppress(OSError):
        descriptors.append(os.open(path, os.O_RDONLY))
        fcntl.flock(descriptors[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    _close(descriptors)


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
