"""Tells when files may have changed: as the system says it, or by looking now and then.

What is watched are folders, those that links lead to among them: editors put a new file in the old one's place, Kubernetes another
folder in the place of a link. Whoever listens compares the files' content, for a folder may change for other reasons.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import aclosing
from pathlib import Path

from watchfiles import awatch

from gateway.settings import Watch

log = logging.getLogger("moe_gateway")

QUIET_MS = 150  # saves that follow each other more closely count as one
LONGEST_MS = 1000  # that they are waited for
LOOK_SECONDS = 2.0  # between two looks at what nothing is told of: a network's file system, a folder that is gone
MOST_LINKS = 40  # from a name to its file

Paths = Callable[[], Collection[Path]]


async def wakes(paths: Paths, mode: Watch, seconds: float = LOOK_SECONDS) -> AsyncIterator[None]:
    """Yields whenever one of `paths` may have changed, and every `seconds` even where nothing is told; never where it is off."""
    while mode is Watch.POLL:
        await asyncio.sleep(seconds)
        yield
    while mode is Watch.AUTO:
        folders = await asyncio.to_thread(_folders, paths())
        yield  # what changed before anybody watched
        try:
            told = awatch(
                *folders,
                watch_filter=None,
                debounce=LONGEST_MS,
                step=QUIET_MS,
                rust_timeout=int(1000 * seconds),
                yield_on_timeout=True,
                recursive=False,
                ignore_permission_denied=True,
            )
            async with aclosing(told):
                async for _ in told:
                    yield
                    if await asyncio.to_thread(_folders, paths()) != folders:
                        break
        except (OSError, RuntimeError) as error:  # it has no watches left, or a folder went away meanwhile
            log.warning("files are looked at now and then: the system does not tell of them", extra={"why": str(error)})
            await asyncio.sleep(seconds)


def _folders(paths: Collection[Path]) -> dict[Path, tuple[int, int]]:
    """The folders to watch, and by which file each is known: one that was made anew has to be watched anew."""
    found: dict[Path, tuple[int, int]] = {}
    for path in paths:
        for step in _chain(path):
            for folder in (step.parent, *step.parent.parents):
                try:
                    known = folder.stat()
                except (OSError, ValueError):  # it is gone, or none has such a name, with a NUL in it
                    continue  # whether it comes back, the one above tells
                found[folder] = known.st_dev, known.st_ino
                break
    return found


def _chain(path: Path) -> list[Path]:
    """The path, and every place that links on the way to its file lead to."""
    steps = [path.absolute()]
    for _ in range(MOST_LINKS):
        here = steps[-1]
        try:
            link = next((part for part in (here, *here.parents) if part.is_symlink()), None)
            target = None if link is None else link.parent / os.readlink(link)
        except OSError:
            break
        if link is None or target is None:
            break
        if link not in steps:
            steps.insert(0, link)  # the folder of the link itself
        steps.append(Path(os.path.normpath(target / here.relative_to(link))))
    return steps
