"""Which replica of an expert is asked first."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from gateway.health import Replica


class Balancer:
    """Least requests in flight for its weight; equal ones take turns. Replicas that are cooling down are left out."""

    def __init__(self) -> None:
        self._turns = itertools.count()

    def order(self, replicas: Sequence[Replica]) -> list[Replica]:
        """The replicas that may be asked, best first."""
        turn = next(self._turns)
        rotated = [replicas[(turn + i) % len(replicas)] for i in range(len(replicas))]
        return sorted((r for r in rotated if r.available), key=lambda r: r.in_flight / r.weight)
