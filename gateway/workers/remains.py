"""What outlives whoever started it: found by its parent, or by the mark in its environment, and ended. Linux alone tells."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from gateway.workers.keeper import PR_SET_CHILD_SUBREAPER, descendants, prctl, processes, tidies
from gateway.workers.launching import CREW_VARIABLE

KEEPER = Path(__file__).with_name("keeper.py")
LOOK_SECONDS = 0.05
TRACKER_SECONDS = 2.0
GIVE_UP_SECONDS = 20.0  # what is still there then waits for a device, and ends when that lets it


def adopting() -> Callable[[], Awaitable[None]]:
    """From now on this process is the parent of what a keeper leaves that is killed. What this returns ends that: every child
    of this process that is no keeper, with all below it."""
    prctl(PR_SET_CHILD_SUBREAPER)
    return _end_adopted


async def _end_adopted() -> None:
    await _end(_adopted)


async def end_marked(state: Path, patience: float) -> int:
    """End what an owner of this state folder left that was killed together with keepers. Keepers that are ending what they
    keep have `patience` seconds for it. How many processes there were."""
    marked = len(_marked(state))
    end = time.monotonic() + patience
    while any(map(_is_keeper, _marked(state))) and time.monotonic() < end:  # noqa: ASYNC110 - they tell nobody
        await asyncio.sleep(LOOK_SECONDS * 4)
    await _end(lambda: _marked(state))
    return marked


async def _end(find: Callable[[], list[int]]) -> None:
    began = time.monotonic()
    while (left := find()) and (passed := time.monotonic() - began) < GIVE_UP_SECONDS:
        for pid in left:
            if passed > TRACKER_SECONDS or not tidies(pid):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(LOOK_SECONDS)
        _note_ended(left)


def _note_ended(pids: list[int]) -> None:
    """Those that are children of this process wait for it."""
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def _adopted() -> list[int]:
    """All that is below this process and below no keeper. A child that ended may have been a keeper: it is asyncio's to note."""
    children = [(pid, ended) for pid, parent, ended in processes() if parent == os.getpid() and not _is_keeper(pid)]
    return [pid for child, ended in children for pid in (*([] if ended else [child]), *descendants(child))]


def _marked(state: Path) -> list[int]:
    mark = os.fsencode(f"{CREW_VARIABLE}={state}")
    pids = [pid for pid, _, ended in processes() if not ended and pid != os.getpid()]
    return [pid for pid in pids if mark in _read(pid, "environ").split(b"\0")]


def _is_keeper(pid: int) -> bool:
    return os.fsencode(KEEPER) in _read(pid, "cmdline").split(b"\0")


def _read(pid: int, what: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except OSError:
        return b""
