"""What the parent of several processes and each of them tell each other: lines of JSON over standard input and output."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from gateway.settings import Settings

M = TypeVar("M")


class Lent(msgspec.Struct):
    """Where a worker is; `url` is None while it is not up."""

    url: str | None
    api_key: str | None


class Setup(msgspec.Struct):
    """The parent's first line: everything that a process needs. `experts` is the text of experts.yaml, `process` counts from 0."""

    process: int
    settings: Settings
    experts: str
    sockets: list[int]
    workers: dict[str, Lent]


class News(msgspec.Struct):
    """Every other line of the parent's."""

    workers: dict[str, Lent]


class Ready(msgspec.Struct, tag="ready"):
    """A process serves; how the experts' servers are not as experts.yaml says, a line each."""

    warnings: list[str] = []


class Hung(msgspec.Struct, tag="hung"):
    """The worker that had this URL does not answer."""

    worker: str
    url: str


class Reloaded(msgspec.Struct, tag="reloaded"):
    """A process serves by the experts.yaml of that digest from now on."""

    digest: str


Told = Ready | Hung | Reloaded


def line(message: Setup | News | Told) -> bytes:
    return msgspec.json.encode(message, enc_hook=str) + b"\n"


def read(text: bytes, kind: Any) -> Any:
    """A message of `kind`. Raises msgspec.DecodeError."""
    return msgspec.json.decode(text, type=kind, dec_hook=_hook)


def lent(workers: Mapping[str, Any]) -> dict[str, Lent]:
    return {name: Lent(worker.url, worker.api_key) for name, worker in workers.items()}


def _hook(kind: Any, value: Any) -> Any:
    """Paths are written as text."""
    if kind is Path:
        return Path(value)
    raise NotImplementedError(f"no message holds a {kind}")
