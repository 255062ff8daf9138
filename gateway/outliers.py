"""Outliers: a replica whose first tokens come much later than its siblings' gets a smaller share, never none.

It goes on being asked, so that it is seen when it is as quick as the others again. More than half of an expert's replicas
are never slow at once: the median of the siblings of the quickest among them would be half of its own or more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from gateway.replica import Replica

SLOW_RATIO = 3.0  # to the median of its siblings
WELL_RATIO = 2.0  # below which a slow one is well again; 2 or more, for what is said above
LEAST_SECONDS = 0.25  # of difference, below which nobody notices


def judge(replicas: Sequence[Replica], now: float) -> Iterator[Replica]:
    """Set which replicas of an expert are slow, by the median TTFT of the last minutes; gives those that became so."""
    known = {r: m for r in replicas if (m := r.median_first_token(now)) is not None}
    for replica in replicas:
        before, replica.slow = replica.slow, _is_slow(replica, known, WELL_RATIO if replica.slow else SLOW_RATIO)
        if replica.slow and not before:
            yield replica


def _is_slow(replica: Replica, known: Mapping[Replica, float], ratio: float) -> bool:
    siblings = [seconds for other, seconds in known.items() if other is not replica]
    if replica not in known or not siblings:
        return False
    usual = median(siblings)
    return known[replica] > ratio * usual and known[replica] - usual > LEAST_SECONDS
