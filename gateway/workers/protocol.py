"""What the process that owns the launched workers and the gateways that use them tell each other: lines of JSON over a socket.

The owner (`moe-gateway workers up`) is the only one that starts, stops and wakes workers. A gateway that connects is told of
the whole crew at once and again after every change; it says what it wants of it.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import msgspec


class OwnerFile(msgspec.Struct, frozen=True):
    """What `owner_file` holds, mode 600, while there is an owner: the path of its Unix socket, and its process id."""

    socket: str
    pid: int


def owner_file(state: Path) -> Path:
    """Where the owner of the state folder says how it is reached."""
    return state / "workers" / "owner.json"


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


Asked = Want | HungWorker | Reread | Down


def line(message: Crew | Asked) -> bytes:
    return msgspec.json.encode(message) + b"\n"


def read_crew(text: bytes) -> Crew:
    """Raises msgspec.DecodeError."""
    return msgspec.json.decode(text, type=Crew)


def read_asked(text: bytes) -> Asked:
    """Raises msgspec.DecodeError."""
    asked: Asked = msgspec.json.decode(text, type=Asked)
    return asked
