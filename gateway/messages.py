"""What the parent of several processes and each of them tell each other: lines of JSON over standard input and output."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from gateway.reloading.errors import Code
from gateway.reloading.status import Reloaded, Status
from gateway.settings import Settings
from router.sources import Sources


class Lent(msgspec.Struct):
    """Where a worker is; `url` is None while it is not up."""

    url: str | None
    api_key: str | None


class Setup(msgspec.Struct):
    """The parent's first line: everything that a process needs. `experts` are the texts of experts.yaml, `process` counts from 0.
    `status` is what became of reloads so far; None where this one is the first to serve."""

    process: int
    settings: Settings
    experts: Sources
    sockets: list[int]
    workers: dict[str, Lent]
    status: Status | None = None


class Workers(msgspec.Struct, tag="workers"):
    """Where the workers are now."""

    workers: dict[str, Lent]


class Serve(msgspec.Struct, tag="serve"):
    """Serve by these texts, and the trained router of that name in `folder`. Answered by Served."""

    experts: Sources
    artifact: str
    folder: Path


class Kept(msgspec.Struct, tag="kept"):
    """What became of reloads; `counted` is the outcome that this process counts for all."""

    status: Status
    counted: Literal["ok", "failed"] | None = None


class Answer(msgspec.Struct, tag="answer"):
    """To the Asked of that number: what came of it, or why nothing did."""

    number: int
    reloaded: Reloaded | None = None
    code: Code = "not_started"
    problems: list[str] = []


News = Workers | Serve | Kept | Answer


class Ready(msgspec.Struct, tag="ready"):
    """A process serves, by the trained router of that name in `folder`; how the experts' servers are not as experts.yaml says, a
    line each."""

    artifact: str
    folder: Path
    warnings: list[str] = []


class Hung(msgspec.Struct, tag="hung"):
    """The worker that had this URL does not answer."""

    worker: str
    url: str


class Asked(msgspec.Struct, tag="asked"):
    """A process was asked to reload; `number` is its own."""

    number: int
    force: bool = False


class Served(msgspec.Struct, tag="served"):
    """A process serves by the experts.yaml of that digest from now on, or does not, and why."""

    digest: str
    problems: list[str] = []


Told = Ready | Hung | Asked | Served


def lent(workers: Mapping[str, Any]) -> dict[str, Lent]:
    return {name: Lent(worker.url, worker.api_key) for name, worker in workers.items()}
