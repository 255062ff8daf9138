"""Status: which experts.yaml runs, and what became of the newest one. What /admin/config tells, and processes tell each other."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from gateway.reloading.errors import Code

State = Literal["serving", "preparing", "refused"]


class Progress(msgspec.Struct, frozen=True):
    """A step of a training, and how much of it is done."""

    step: str
    done: int
    total: int

    def __str__(self) -> str:
        return f"{self.step} {100 * self.done // max(1, self.total)} %"


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """`config` is the digest of what runs since `since`, by the trained router `router`; `changes` are what it changed and
    `warnings` what is wrong with it all the same. `wanted` is the digest of what was found last where that does not run: it is
    being prepared, or was refused at `tried` with `code` and `problems`. Times are Unix seconds."""

    state: State = "serving"
    config: str
    router: str
    since: float
    files: tuple[str, ...] = ()
    experts: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    wanted: str | None = None
    tried: float | None = None
    code: Code | None = None
    problems: tuple[str, ...] = ()
    progress: Progress | None = None
    watch: str = "off"

    def described(self) -> dict[str, Any]:
        """As JSON has it; times as ISO 8601."""
        told: dict[str, Any] = msgspec.to_builtins(self)
        return {"status": told.pop("state"), **told, "since": _iso(self.since), "tried": _iso(self.tried)}

    def brief(self) -> dict[str, Any]:
        """For everybody: no word of what the file says."""
        return {"status": self.state, "running": self.config, "wanted": self.wanted}


class Reloaded(msgspec.Struct, frozen=True):
    """What came of a reload: `changes` are what it changed, `warnings` what it was forced past."""

    status: Literal["reloaded", "unchanged"]
    config: str
    experts: tuple[str, ...]
    changes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
