"""Conversations replayed turn by turn: how often the expert changes, and how often it ought to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Replay:
    """One conversation: who was given each of the user's turns when it was the last one, and each turn's label where known."""

    given: tuple[str, ...]
    labels: tuple[str, ...] = ()

    @property
    def steps(self) -> list[tuple[int, int]]:
        """The steps from one user turn to the next, as positions."""
        return list(zip(range(len(self.given)), range(1, len(self.given)), strict=False))

    @property
    def one_domain(self) -> bool | None:
        """Whether every turn has the same label; None where turns have none."""
        return len(set(self.labels)) == 1 if self.labels else None


def bounce(replays: Iterable[Replay]) -> float | None:
    """The bounce rate, in [0, 1]: of the steps from one user turn to the next, over all conversations, the share at which
    the expert changes. None where no conversation has two turns."""
    changed = [replay.given[a] != replay.given[b] for replay in replays for a, b in replay.steps]
    return sum(changed) / len(changed) if changed else None


def at_changes(replays: Iterable[Replay]) -> list[bool]:
    """For each step at which the label changes whether the expert changes as well."""
    return [
        replay.given[a] != replay.given[b]
        for replay in replays
        if replay.labels
        for a, b in replay.steps
        if replay.labels[a] != replay.labels[b]
    ]


def followed(replays: Iterable[Replay]) -> float | None:
    """Of the steps at which the label changes, the share at which the expert changes as well; None where no label does."""
    changed = at_changes(replays)
    return sum(changed) / len(changed) if changed else None


def conversation_figures(replays: Sequence[Replay], switches: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Bounce rates of all conversations, of those whose turns have one label (there every switch is without cause), and of
    those whose labels change (there `followed` is the share of the `changes` that the expert goes along with)."""
    together = [replay for replay in replays if replay.one_domain]
    moving = [replay for replay in replays if replay.one_domain is False]
    return {
        **_figures(replays),
        "one_domain": _figures(together),
        "changing": _figures(moving) | {"changes": len(at_changes(moving)), "followed": followed(moving)},
        "switches": dict(switches or {}),
    }


def _figures(replays: Sequence[Replay]) -> dict[str, Any]:
    longer = [replay for replay in replays if replay.steps]
    return {
        "conversations": len(longer),
        "steps": sum(len(replay.steps) for replay in longer),
        "bounce": bounce(longer),
    }
