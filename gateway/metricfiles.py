"""Where several processes keep their metrics: files in one folder, that whichever process is asked adds up.

They are prometheus_client's memory-mapped files, named by the process's number in place of its id: the process that replaces a
dead one goes on with its counters, so that sums stay right and files do not pile up.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import Gauge, multiprocess, values
from prometheus_client.core import Metric

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # the library's; set for a process before it imports the library
PREFIX = "metrics-"
GONE = -1.0  # less than anything that a gauge of ours says: the largest of several values is one that is not gone


@contextmanager
def fresh_folder(state: Path) -> Iterator[Path]:
    """A new folder in `state` that only this user reads; gone afterwards. Those that killed gateways left are removed first."""
    state.mkdir(parents=True, exist_ok=True)
    # One at a time: a folder that is made but not yet locked would be taken for one that was left.
    with (state / "metrics.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        for left in state.glob(f"{PREFIX}*"):
            _remove_unused(left)
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=state))
        held = (folder / "lock").open("w")
        fcntl.flock(held, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        held.close()


def join(process: int) -> None:
    """Count in files from here on, as process number `process`; called before the first metric is made."""
    values.ValueClass = values.MultiProcessValue(lambda: process)  # type: ignore[no-untyped-call]


def forget(folder: Path, process: int) -> None:
    """Drop what a dead process said of the present; what it counted stays."""
    multiprocess.mark_process_dead(process, str(folder))  # type: ignore[no-untyped-call]


def shared() -> bool:
    """Whether this process is one of several that count together."""
    return VARIABLE in os.environ


def clear(gauge: Gauge) -> None:
    """Drop every series of a gauge with labels. In files none can be: there it is marked, and left out by `collect`."""
    if not shared():
        gauge.clear()
        return
    for metric in gauge.collect():
        for sample in metric.samples:
            gauge.labels(**sample.labels).set(GONE)


def collect() -> Iterator[Metric]:
    """What all processes count. A series that is gone in each of them is left out."""
    for metric in multiprocess.MultiProcessCollector(None).collect():  # type: ignore[no-untyped-call]
        if metric.type == "gauge":
            metric.samples = [sample for sample in metric.samples if sample.value != GONE]
        yield metric


def _remove_unused(folder: Path) -> None:
    try:
        with (folder / "lock").open("r+") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # another gateway on the same state folder counts there
    except FileNotFoundError:
        pass
    shutil.rmtree(folder, ignore_errors=True)
