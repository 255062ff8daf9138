"""What panels ask Prometheus, put together from few forms. `where` are matchers without their braces, `by` labels to keep.

A range of `RATE` is as short as the resolution allows, `WHOLE` is all of what the dashboard shows.
"""

from __future__ import annotations

RATE, WHOLE = "$__rate_interval", "$__range"
EXPERT = 'expert=~"$expert"'
DOMAIN = 'domain=~"$domain"'
BOTH = f"{EXPERT}, {DOMAIN}"
ASKED = f'{EXPERT}, endpoint!~"route|messages.count_tokens"'  # for an answer, not a decision or a count of tokens alone
INSTANCE = 'instance=~"$instance"'
HOUR, DAY = 3600, 86400


def series(metric: str, where: str = "", over: str = "") -> str:
    """A selector; with `over`, of what it was in that range."""
    return metric + (f"{{{where}}}" if where else "") + (f"[{over}]" if over else "")


def total(inner: str, by: str = "", of: str = "sum") -> str:
    return f"{of} by ({by}) ({inner})" if by else f"{of}({inner})"


def rate(metric: str, where: str = "", by: str = "", over: str = RATE) -> str:
    """By the second."""
    return total(f"rate({series(metric, where, over)})", by)


def growth(metric: str, where: str = "", by: str = "", over: str = WHOLE) -> str:
    """How much a counter grew."""
    return total(f"increase({series(metric, where, over)})", by)


def events(metric: str, where: str = "", by: str = "", over: str = WHOLE) -> str:
    """How often something happened that may be rare. `increase` does not see the first event of a series, with which it began:
    one that was not there in the hour before the range, though Prometheus was, counts whole."""
    now, before = series(metric, where), f"[1h] offset {over}"
    begun = f"({now} unless last_over_time({now}{before})) and on () (count(last_over_time(up{before})) > 0)"
    return total(f"{begun} or increase({series(metric, where, over)})", by)


def quantile(part: float, histogram: str, where: str = "", by: str = "", over: str = RATE) -> str:
    """Nothing, and not NaN, where nothing was observed."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({part:g}, {rate(f'{histogram}_bucket', where, labels, over)}) >= 0"


def buckets(histogram: str, where: str = "", over: str = RATE) -> str:
    """How many fell into each bucket."""
    return growth(f"{histogram}_bucket", where, "le", over)


def or_zero(single: str) -> str:
    """0 where a query for one figure finds no series."""
    return f"({single} or vector(0))"


def share(part: str, whole: str) -> str:
    """One figure of another, 0 where there is none of it; nothing where there is nothing to have a share in."""
    return f"{or_zero(part)} / ({whole} > 0)"


def fraction(part: str, whole: str) -> str:
    """Each series of `part` of one figure."""
    return f"{part} / on () group_left () ({whole} > 0)"


def share_by(label: str, part: str, whole: str) -> str:
    """The same for each value of a label, by which both are summed."""
    return f"({part} or 0 * {whole}) / on ({label}) ({whole} > 0)"
