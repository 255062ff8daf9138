"""A trial: another experts.yaml is tried in a process of its own, so that no request waits for it, and a crash is nobody else's."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from gateway.jsonlines import line, read
from gateway.reloading.errors import Code, ReloadError
from gateway.reloading.status import Progress
from router.sources import Sources

log = logging.getLogger("moe_gateway")

LONGEST_LINE = 16 * 1024 * 1024  # bytes; a verdict names every test that failed
KILLED = (
    "the process that trains was killed by the system, as it does where memory is short; "
    "the router that runs goes on, and what needs no training can still be reloaded"
)


class Task(msgspec.Struct):
    """Try `sources` against the router `artifact` in `folder`, which serves: train another where `retrain` is set and none in
    `state` fits, and run the routing `tests`. With `force` what speaks against it is told and no obstacle."""

    sources: Sources
    state: Path
    folder: Path
    artifact: str
    retrain: bool
    tests: str | None
    force: bool


class Verdict(msgspec.Struct, tag="verdict"):
    """The router to serve by; `objections` are what the file was forced past. `figures` say how old domains do."""

    artifact: str
    folder: Path
    objections: list[str] = []
    figures: str = ""


class Refusal(msgspec.Struct, tag="refusal"):
    code: Code
    problems: list[str]


class Step(Progress, frozen=True, tag="step"):
    """How far training has come."""


Told = Step | Verdict | Refusal


async def tried(task: Task, seconds: float, on_step: Callable[[Progress], None]) -> Verdict:
    """Raises ReloadError where the file is not fit to be served, training fails, or takes more than `seconds`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway.reloading.training",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=_environment(),
        limit=LONGEST_LINE,
        start_new_session=True,  # Ctrl-C is for the gateway, which then ends this one
    )
    try:
        async with asyncio.timeout(seconds):
            return await _heard(process, task, on_step)
    except TimeoutError:
        why = f"training took more than {seconds:g} seconds and was ended; --retrain-seconds allows more"
        raise ReloadError("training_failed", [why]) from None
    finally:
        await _ended(process)


async def _heard(process: asyncio.subprocess.Process, task: Task, on_step: Callable[[Progress], None]) -> Verdict:
    assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - asked for when it was spawned
    with contextlib.suppress(ConnectionError):
        process.stdin.write(line(task))  # and left open: its end tells the process that this one is gone
        await process.stdin.drain()
    async for text in process.stdout:
        told = read(text, Told)
        if isinstance(told, Step):
            on_step(Progress(told.step, told.done, told.total))
        elif isinstance(told, Refusal):
            raise ReloadError(told.code, told.problems)
        elif isinstance(told, Verdict):
            return told
    status = await process.wait()
    died = KILLED if status == -signal.SIGKILL else f"the process that trains died (status {status}); its log says more"
    raise ReloadError("training_failed", [died])


async def _ended(process: asyncio.subprocess.Process) -> None:
    """It and what it started; whether it is done or not."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _environment() -> dict[str, str]:
    """One thread for arithmetic: it has time, and requests have none."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    kept = {
        name: value for name, value in os.environ.items() if name not in ("MOE_GATEWAY_KEYS", "MOE_GATEWAY_ADMIN_KEY")
    }
    return {**threads, **kept}
