"""Servers as processes of their own: started, waited for, weighed and stopped."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

STOPPING = 10.0
MEGABYTE = 2**20


class NotUpError(Exception):
    """A server did not come up. The message has the end of what it said."""


@dataclass(frozen=True)
class Use:
    """What a server and its children have used: CPU seconds, user and system, and resident megabytes."""

    cpu: float
    resident: float


@dataclass(frozen=True)
class Server:
    """A process that answers at `url`."""

    url: str
    process: subprocess.Popen[bytes]

    def use(self) -> Use:
        """Of the whole tree at this moment. Pages that its processes share count for each of them."""
        cpu = resident = 0.0
        top = psutil.Process(self.process.pid)
        for process in (top, *top.children(recursive=True)):
            try:
                times = process.cpu_times()
                cpu += times.user + times.system
                resident += process.memory_info().rss / MEGABYTE
            except psutil.NoSuchProcess:
                continue
        return Use(cpu, resident)


@contextmanager
def serving(
    command: Sequence[str],
    port: int,
    ready: str,
    log: Path,
    patience: float = 120.0,
    environment: Mapping[str, str] | None = None,
    passed: Sequence[int] = (),
) -> Iterator[Server]:
    """Runs `command` while the block lasts, from when GET `ready` is answered well. Raises NotUpError."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            pass_fds=passed,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(process, f"{url}{ready}", log, patience)
        yield Server(url, process)
    finally:
        _stop(process)


def free_port() -> int:
    """A port that nobody uses at the moment."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], url: str, log: Path, patience: float) -> None:
    until = time.monotonic() + patience
    while process.poll() is None and time.monotonic() < until:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (OSError, urllib.error.URLError):
            time.sleep(0.1)
    said = log.read_text("utf-8", "replace")[-2000:]
    raise NotUpError(f"{process.args!r} did not answer {url} within {patience:.0f} s; it said:\n{said}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """The whole tree: politely, then not."""
    try:
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        tree = []
    process.terminate()
    try:
        process.wait(STOPPING)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    left = [one for one in tree[1:] if one.is_running()]
    for one in left:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(left, STOPPING)
