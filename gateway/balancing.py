"""Which replica of an expert is asked first."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.health import Replica


class Balancer:
    """Least requests in flight for its weight; among equals, turns in proportion to weight (stride scheduling).

    Waldspurger and Weihl 1995, "Stride Scheduling". Replicas that are cooling down are left out.
    """

    def order(self, replicas: Sequence[Replica]) -> list[Replica]:
        """The replicas that may be asked, best first."""
        ordered = sorted((r for r in replicas if r.available), key=lambda r: (r.in_flight / r.weight, r.turns))
        if ordered:
            # One that was away has no claim on the turns that it missed.
            behind = min(r.turns for r in ordered)
            for replica in replicas:
                replica.turns = max(replica.turns, behind)
            ordered[0].turns += 1 / ordered[0].weight
        return ordered
