"""What the process that owns the launched workers and the gateways that use them tell each other: lines of JSON over a socket.

The owner (`moe-gateway workers up`) is the only one that starts, stops and wakes workers. A gateway that connects is told of
the whole crew at once and again after every change; it says what it wants of it.
"""

from __future__ import annotations

import os
import stat
from enum import StrEnum
from pathlib import Path

import msgspec

MAX_OWNER_FILE = 4096  # bytes


class OwnerFile(msgspec.Struct, frozen=True):
    """What `owner_file` holds, mode 600, while there is an owner: the path of its Unix socket, and its process id."""

    socket: str
    pid: int


def owner_file(state: Path) -> Path:
    """Where the owner of the state folder says how it is reached."""
    return state / "workers" / "owner.json"


def read_owner(state: Path) -> OwnerFile:
    """Who owns the state folder's workers. Raises OSError where nobody says so, ValueError where another could have written it."""
    with open(os.open(owner_file(state), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode) or about.st_mode & 0o022 or about.st_uid not in (0, os.geteuid()):
            raise ValueError("others could have written it")
        return msgspec.json.decode(file.read(MAX_OWNER_FILE), type=OwnerFile)


class WorkerState(StrEnum):
    """A FAILED worker did not start or died, and is started again after a pause. One that is ASLEEP costs no GPU."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"  # finishes what it runs, takes nothing new
    ASLEEP = "asleep"
    WAKING = "waking"
    FAILED = "failed"


class WorkerFacts(msgspec.Struct, frozen=True):
    """One worker. `name` is its replica's, such as coder-0; `url` ends in /v1 and is None unless it is READY. `since` is when
    it came into this state, seconds since 1970; `wakes` counts how often it was woken, `wake_seconds` is how long the last
    took, `asleep_seconds` the sum of what it slept up to `since`. `why` is the last failure, for people."""

    name: str
    expert: str
    state: WorkerState
    since: float
    url: str | None = None
    api_key: str | None = None
    pid: int | None = None
    restarts: int = 0
    wakes: int = 0
    wake_seconds: float | None = None
    asleep_seconds: float = 0.0
    why: str = ""

    @property
    def failing(self) -> bool:
        """Whether it failed, and is not up again."""
        return self.state is WorkerState.FAILED or bool(self.why and self.state is not WorkerState.READY)


class Crew(msgspec.Struct, frozen=True, tag="crew"):
    """All workers, by the experts.yaml of that `digest`."""

    digest: str
    workers: list[WorkerFacts]


class Want(msgspec.Struct, frozen=True, tag="want"):
    """So many requests wait here for the expert's workers now, none any more with 0; `likely` is how many more are expected
    within a minute, by what recent traffic is about."""

    expert: str
    waiting: int
    likely: float = 0.0


class HungWorker(msgspec.Struct, frozen=True, tag="hung"):
    """The worker that has this URL answers no probes."""

    name: str
    url: str


class Reread(msgspec.Struct, frozen=True, tag="reread"):
    """experts.yaml changed: start, stop and replace workers by it."""


class Down(msgspec.Struct, frozen=True, tag="down"):
    """Stop every worker, and leave."""


class Look(msgspec.Struct, frozen=True, tag="look"):
    """Tell me the Board, once. For people, who want to know more than a gateway does."""


class Row(msgspec.Struct, frozen=True):
    """One worker as it does now. `facts` have no key. `place` is its GPUs or threads, in words; `memory` is bytes of all its
    processes, None where they are not known or none runs; the rest is what its metrics say."""

    facts: WorkerFacts
    model: str
    place: str
    log: str
    memory: int | None = None
    running: int = 0
    waiting: int = 0
    tokens_per_second: float = 0.0


class Board(msgspec.Struct, frozen=True, tag="board"):
    """All workers, in the order of experts.yaml, and the process that owns them."""

    pid: int
    config: str
    digest: str
    rows: list[Row]


Asked = Want | HungWorker | Reread | Down | Look


def line(message: Crew | Board | Asked) -> bytes:
    return msgspec.json.encode(message) + b"\n"


def read_crew(text: bytes) -> Crew:
    """Raises msgspec.DecodeError."""
    return msgspec.json.decode(text, type=Crew)


def read_told(text: bytes) -> Crew | Board:
    """Raises msgspec.DecodeError."""
    told: Crew | Board = msgspec.json.decode(text, type=Crew | Board)
    return told


def read_asked(text: bytes) -> Asked:
    """Raises msgspec.DecodeError."""
    asked: Asked = msgspec.json.decode(text, type=Asked)
    return asked
