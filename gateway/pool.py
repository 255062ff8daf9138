"""The replicas of every expert, and how many requests each expert holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from gateway.health import Replica
from gateway.upstreams.base import Address, FixedAddress
from router.experts import ExpertsFile

InFlight = Callable[[str, int], None]


class Pool:
    """`replicas` by expert, named `coder-0`, `coder-1`, …; `on_change` hears of every change of an expert's requests in flight."""

    def __init__(
        self, file: ExpertsFile, workers: Mapping[str, Address], on_change: InFlight = lambda expert, count: None
    ) -> None:
        self.file = file
        self.replicas: dict[str, list[Replica]] = {}
        self._in_flight = dict.fromkeys(file.experts, 0)
        self._on_change = on_change
        for expert, spec in file.experts.items():
            if spec.upstream.embedded is not None:
                addresses = [(workers[spec.upstream.embedded], 1.0)]
            else:
                addresses = [(FixedAddress(r.url, spec.upstream.api_key), r.weight) for r in spec.upstream.vllm]
            self.replicas[expert] = [Replica(f"{expert}-{i}", a, w) for i, (a, w) in enumerate(addresses)]

    def all(self) -> list[Replica]:
        return [replica for replicas in self.replicas.values() for replica in replicas]

    def ready(self, expert: str) -> bool:
        """Whether a replica of the expert may be asked."""
        return any(replica.available for replica in self.replicas[expert])

    def full(self, expert: str) -> bool:
        """Whether the expert holds as many requests as it may."""
        limit = self.file.experts[expert].max_in_flight
        return limit is not None and self._in_flight[expert] >= limit

    @contextmanager
    def holding(self, expert: str, replica: Replica) -> Iterator[None]:
        """One request in flight at the replica."""
        self._count(expert, 1)
        replica.in_flight += 1
        try:
            yield
        finally:
            replica.in_flight -= 1
            self._count(expert, -1)

    def _count(self, expert: str, change: int) -> None:
        self._in_flight[expert] += change
        self._on_change(expert, self._in_flight[expert])
