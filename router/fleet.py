"""Fleet: what is known of the running experts at one moment, beside what experts.yaml says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Fleet:
    """A snapshot. `latency` is the seconds to an expert's first token, without the experts of which it is not known: it says
    which of those as good and as cheap answers at the start of a conversation, and which is asked first when that one fails.
    `prices` is what experts that are paid by the hour were measured to cost, in USD per million tokens: it counts where latency
    does. `down` are the experts of which no replica can be asked."""

    latency: Mapping[str, float] = field(default_factory=dict)
    down: frozenset[str] = frozenset()
    prices: Mapping[str, float] = field(default_factory=dict)


EMPTY_FLEET = Fleet()
