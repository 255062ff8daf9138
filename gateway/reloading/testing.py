"""The routing tests of what is served already: which of them fail."""

from __future__ import annotations

import asyncio

from gateway.reloading.errors import ReloadError
from gateway.reloading.preparing import Candidate, read_tests
from gateway.reloading.trial import Task, tried
from gateway.settings import Settings
from router.errors import ConfigError
from router.routetests.file import FILE_NAME
from router.sources import Sources


async def failed_tests(running: Candidate, sources: Sources, settings: Settings) -> tuple[str, ...]:
    """A line for each, beginning with the name of their file, or why they cannot be run. None where there are no tests."""
    try:
        tests = await asyncio.to_thread(read_tests, settings.config)
        if tests is None:
            return ()
        task = Task(sources, settings.state.absolute(), running.folder, running.artifact, False, tests, True)
        lines = (await tried(task, settings.retrain_seconds, lambda progress: None)).objections
    except ConfigError as error:
        lines = str(error).splitlines()
    except ReloadError as error:
        lines = list(error.problems)
    return tuple(line if line.startswith(FILE_NAME) else f"{FILE_NAME}: {line}" for line in lines)
