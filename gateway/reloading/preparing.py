"""From what stands in files to a Candidate: what could be served in the place of what runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from gateway.reloading.errors import ReloadError
from gateway.reloading.status import Progress
from gateway.reloading.trial import Task, tried
from gateway.settings import Settings
from router.errors import ConfigError, Problem
from router.experts import ExpertsFile, parse_sources
from router.routetests.file import FILE_NAME, beside
from router.sources import MAX_BYTES, Sources, read_sources
from router.textfiles import UnreadableError, read_text
from router.training.provision import lessons


@dataclass(frozen=True)
class Wanted:
    """What stands in the files: those of the configuration, and the routing tests beside it, None where there are none."""

    sources: Sources
    tests: str | None = None


@dataclass(frozen=True)
class Candidate:
    """An experts.yaml and the trained router that goes with it: its name, and its folder. `warnings` are what it was forced past,
    `figures` how it does old domains where it was trained anew."""

    file: ExpertsFile
    artifact: str
    folder: Path
    warnings: tuple[str, ...] = field(default=())
    figures: str = ""


def read_wanted(config: Path) -> Wanted:
    """Raises ConfigError where one of the files cannot be read."""
    return Wanted(read_sources(config), read_tests(config))


def read_tests(config: Path) -> str | None:
    """The routing tests beside a configuration, None where there are none. Raises ConfigError where they cannot be read."""
    path = beside(config)
    try:
        return None if path is None else read_text(path, MAX_BYTES)
    except UnreadableError as error:
        raise ConfigError([Problem(FILE_NAME, *(error.place or (1, 1)), "", str(error))]) from None


async def prepared(
    wanted: Wanted,
    running: Candidate,
    settings: Settings,
    workers: Collection[str],
    on_progress: Callable[[Progress], None],
    force: bool = False,
) -> Candidate:
    """Check all of it, and try it in a process of its own where a router has to be trained or routing tests to be run. `workers`
    are the embedded ones that run. `running` itself comes back where it is just what is wanted. Raises ReloadError."""
    file = await parsed(wanted.sources)
    if file.digest == running.file.digest and file == running.file:
        return running
    lacking = {expert.upstream.embedded for expert in file.experts.values()} - {None, *workers}
    if lacking:
        names = ", ".join(sorted(map(str, lacking)))
        raise ReloadError("not_started", [f"{names} is not running: it is launched at start-up alone"])
    retrain = lessons(file) != lessons(running.file)
    if not retrain and wanted.tests is None:
        return Candidate(file, running.artifact, running.folder)
    folder, name = running.folder, running.artifact
    task = Task(wanted.sources, settings.state.absolute(), folder, name, retrain, wanted.tests, force)
    verdict = await tried(task, settings.retrain_seconds, on_progress)
    return Candidate(file, verdict.artifact, verdict.folder, tuple(verdict.objections), verdict.figures)


async def parsed(sources: Sources) -> ExpertsFile:
    """Raises ReloadError."""
    try:
        return await asyncio.to_thread(parse_sources, sources)
    except ConfigError as error:
        raise refused(error) from None


def refused(error: ConfigError) -> ReloadError:
    return ReloadError("invalid_config", [str(problem) for problem in error.problems] or [str(error)])
