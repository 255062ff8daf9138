"""Outliers: a replica whose first tokens come much later than its siblings' gets a smaller share, never none.

It goes on being asked, so that it is seen when it is as quick as the others again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from gateway.replica import Replica

SLOW_RATIO = 3.0  # to the median of its siblings
WELL_RATIO = 2.0  # below which a slow one is well again
LEAST_SECONDS = 0.25  # of difference, below which nobody notices
MOST_SLOW = 0.5  # of an expert's replicas: were most of them slow, it would not be they who are odd


def judge(replicas: Sequence[Replica], now: float) -> Iterator[Replica]:
    """Set which replicas of an expert are slow, by the median TTFT of the last minutes; gives those that became so."""
    known = {r: m for r in replicas if (m := r.median_first_token(now)) is not None}
    for replica in replicas:
        if replica.slow and not _is_slow(replica, known, WELL_RATIO):
            replica.slow = False
    room = int(MOST_SLOW * len(replicas)) - sum(r.slow for r in replicas)
    # The slowest first, as there may be room for one more only.
    for replica in sorted(known, key=lambda r: -known[r]):
        if room > 0 and not replica.slow and _is_slow(replica, known, SLOW_RATIO):
            replica.slow = True
            room -= 1
            yield replica


def _is_slow(replica: Replica, known: dict[Replica, float], ratio: float) -> bool:
    siblings = [seconds for other, seconds in known.items() if other is not replica]
    if replica not in known or not siblings:
        return False
    usual = median(siblings)
    return known[replica] > ratio * usual and known[replica] - usual > LEAST_SECONDS
