"""Which replica of an expert is asked first."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from gateway.health import Replica


class Balancer:
    """Least requests in flight for its weight; equal ones take turns. Replicas that are cooling down are left out."""

    def __init__(self) -> None:
        self._turns = itertools.count(1)

    def order(self, replicas: Sequence[Replica]) -> list[Replica]:
        """The replicas that may be asked, best first."""
        ordered = sorted((r for r in replicas if r.available), key=lambda r: (r.in_flight / r.weight, r.last_first))
        if ordered:
            ordered[0].last_first = next(self._turns)
        return ordered
