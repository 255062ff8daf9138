"""What Prometheus already knows when the traffic begins: hours of a gateway a week before, made up, and put into its database."""

from __future__ import annotations

import calendar
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

WEEK, DAY, HOUR = 604800, 86400, 3600
STEP = 60  # seconds between its samples
MARGIN = 2 * HOUR  # before and after the hour that is compared
LABELS = 'job="moe-gateway",instance="gateway-of-last-week:8080"'
MIX = {"code": 0.40, "math": 0.10, "bio": 0.25, "general": 0.25}
OTHER_MIX = {"code": 0.1, "math": 0.6, "bio": 0.1, "general": 0.2}
DECISIONS_PER_HOUR = 3600.0
USD_PER_HOUR = 0.36


@dataclass(frozen=True)
class History:
    """`now` is when the traffic begins, in unix seconds, on a whole minute. Counters grow evenly, so that their pace is known."""

    now: float

    @property
    def mix(self) -> dict[str, float]:
        """The share of each domain in every hour of it."""
        return MIX

    def text(self) -> str:
        """Its samples, as promtool takes them: what was a week before, and something else a day after that."""
        week, later = self._minutes(WEEK), self._minutes(WEEK - DAY)
        lines = [
            *self._counter("moe_routing_decisions", _decisions(MIX), week, _decisions(OTHER_MIX), later),
            *self._counter("moe_cost_usd", {'expert="general",domain="general"': USD_PER_HOUR}, week),
        ]
        return "\n".join((*lines, "# EOF", ""))

    def spent(self, since: float) -> float:
        """USD from then on."""
        start, *_, end = self._minutes(WEEK)
        return max(0.0, end - max(since, start)) / HOUR * USD_PER_HOUR

    def _minutes(self, ago: float) -> range:
        """Of the hours around that many seconds ago."""
        middle = round(self.now - ago)
        return range(middle - MARGIN, middle + MARGIN + 1, STEP)

    def _counter(self, name: str, *paces: Any) -> Iterator[str]:
        """`paces` are how much each series grows in an hour, and the minutes in which it does so, one after the other."""
        yield f"# TYPE {name} counter"
        for labels in paces[0]:
            known = 0.0
            for per_hour, minutes in zip(paces[::2], paces[1::2], strict=True):
                for at in minutes:
                    yield f"{name}_total{{{labels},{LABELS}}} {known:.9f} {at}"
                    known += per_hour[labels] * STEP / HOUR


def _decisions(mix: Mapping[str, float]) -> dict[str, float]:
    """By the labels of a series; as many again were not classified."""
    return {
        f'expert="general",domain="{domain}",reason="best",stage="static"': DECISIONS_PER_HOUR * share
        for domain, share in {**mix, "none": 1.0}.items()
    }


def month_start(at: float) -> float:
    """The first second of its month in UTC."""
    return datetime.fromtimestamp(at, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp()


def month_left(at: float) -> float:
    """Seconds until its month ends in UTC."""
    day = datetime.fromtimestamp(at, UTC)
    return month_start(at) + calendar.monthrange(day.year, day.month)[1] * DAY - at


def day_start(at: float) -> float:
    """Midnight before it, in UTC."""
    return at - at % DAY
