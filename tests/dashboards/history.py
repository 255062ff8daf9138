"""What Prometheus already knows when the traffic begins: hours of a gateway a week before, made up, and put into its database."""

from __future__ import annotations

import calendar
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

WEEK, DAY, HOUR = 604800, 86400, 3600
STEP = 60  # seconds between its samples
MARGIN = 2 * HOUR  # before and after the hour that is compared
LABELS = 'job="moe-gateway",instance="gateway-of-last-week:8080"'
MIX = {"code": 0.40, "math": 0.10, "bio": 0.25, "general": 0.25}
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

    @property
    def start(self) -> float:
        return self.now - WEEK - MARGIN

    @property
    def end(self) -> float:
        return self.now - WEEK + MARGIN

    def text(self) -> str:
        """Its samples, as promtool takes them."""
        return "\n".join((*self._counter("moe_routing_decisions", self._decisions()), *self._counter("moe_cost_usd", self._cost()),
                          "# EOF", ""))  # fmt: skip

    def _decisions(self) -> dict[str, float]:
        return {
            f'expert="general",domain="{domain}",reason="best",stage="static"': DECISIONS_PER_HOUR * share
            for domain, share in MIX.items()
        }

    def _cost(self) -> dict[str, float]:
        return {'expert="general",domain="general"': USD_PER_HOUR}

    def _counter(self, name: str, per_hour: dict[str, float]) -> Iterator[str]:
        yield f"# TYPE {name} counter"
        for labels, pace in per_hour.items():
            for number in range(round((self.end - self.start) / STEP) + 1):
                yield f"{name}_total{{{labels},{LABELS}}} {pace * number * STEP / HOUR:.9f} {self.start + number * STEP:.0f}"

    def spent(self, since: float) -> float:
        """USD from then on."""
        return max(0.0, self.end - max(since, self.start)) / HOUR * USD_PER_HOUR


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
