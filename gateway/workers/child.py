"""The workers' owner as a child of `serve --with-workers`: started again when it dies, gone when the gateway is."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gateway.workers.launching import DRAIN_SECONDS
from gateway.workers.protocol import Crew, WorkerState
from gateway.workers.reaching import reached

log = logging.getLogger("moe_gateway")

OWNED = 3  # the exit status of an owner that found another
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
STEADY_SECONDS = 60.0
MOST_DEATHS = 3  # while the gateway waits for its workers
LOOK_SECONDS = 0.2
STOP_SECONDS = DRAIN_SECONDS + 15.0
WITHHELD = ("MOE_GATEWAY_KEYS", "MOE_GATEWAY_ADMIN_KEY")  # the callers' keys are not its business
UNSETTLED = (WorkerState.STARTING, WorkerState.WAKING, WorkerState.STOPPING)


class OwnerChild:
    """Its standard input is a pipe that ends with this process, however that ends: then it stops the workers. `starts` counts
    how often it was started, `deaths` how often it ended though nobody asked it to and there was no other owner."""

    def __init__(self, config: Path, state: Path, log: Sequence[str] = ()) -> None:
        """`log` are the arguments that say what of its log is told, and how."""
        self._state = state
        self._command = [sys.executable, "-m", "gateway.cli", "workers", "up", "--with-parent"]
        self._command += ["--config", str(config), "--state", str(state), *log]
        self._process: subprocess.Popen[bytes] | None = None
        self._lock, self._ending = threading.Lock(), threading.Event()
        self.starts = self.deaths = 0
        self._thread = threading.Thread(target=self._watch, name="workers", daemon=True)

    def __enter__(self) -> OwnerChild:
        self._spawn()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Let it stop the workers; an interrupt meanwhile lets them finish nothing."""
        with self._lock:
            self._ending.set()
            process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(STOP_SECONDS)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            process.terminate()  # as its second signal: the end of its input was the first
            try:
                process.wait(STOP_SECONDS / 4)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def wait(self, show: Callable[[Crew], None]) -> Crew | None:
        """Until of every expert a worker is ready, or none is on its way; `show` is told all that is said meanwhile.

        None where the owner itself does not stay.
        """
        while self.deaths < MOST_DEATHS and self._thread.is_alive():
            with reached(self._state) as owner:
                while owner is not None and isinstance(crew := owner.hear(None), Crew):
                    show(crew)
                    if settled(crew):
                        return crew
            time.sleep(LOOK_SECONDS)
        log.error("the workers' owner does not stay: the gateway goes on without its workers")
        return None

    def _spawn(self) -> None:
        with self._lock:
            if self._ending.is_set():
                return
            self.starts += 1
            self._process = subprocess.Popen(  # noqa: S603 - this very program
                self._command,
                stdin=subprocess.PIPE,
                stdout=sys.stderr.fileno(),
                env=_environment(os.environ),
                start_new_session=True,  # Ctrl-C is for the gateway, which then ends this one
            )

    def _watch(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while self._process is not None:
            started = time.monotonic()
            status = self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()
            if self._ending.is_set():
                return
            if status == 0:
                log.warning("the workers were stopped", extra={"by": "moe-gateway workers down"})
                return
            if status != OWNED:
                self.deaths += 1
                log.error("the workers' owner died", extra={"exit": status})
            if time.monotonic() - started > STEADY_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            if self._ending.wait(pause):
                return
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            self._spawn()


def settled(crew: Crew) -> bool:
    """Whether of every expert one worker is ready, or none is on its way any more."""
    by_expert: dict[str, list[WorkerState]] = {}
    for facts in crew.workers:
        by_expert.setdefault(facts.expert, []).append(facts.state)
    return all(
        WorkerState.READY in states or not any(state in UNSETTLED for state in states) for states in by_expert.values()
    )


def _environment(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in WITHHELD}
