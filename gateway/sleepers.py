"""Sleepers: the experts whose workers sleep, which of them do now, and how long one would wait for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from gateway.replica import Replica
from gateway.workers.link import LinkedAddress, launcher_of
from gateway.workers.protocol import WorkerFacts, WorkerState
from gateway.workers.turns import Turns, linger, longest_turn, sleepers_of, state_of
from router.experts import ExpertsFile

# What one that will be awake again may be in; a worker that finishes what it runs is about to sleep.
SLEEPING = frozenset({WorkerState.ASLEEP, WorkerState.WAKING, WorkerState.STOPPING})


class Wants(Protocol):
    """Who hears what is wanted of the workers: their owner."""

    def waiting(self, expert: str, count: int) -> None:
        """So many requests wait for the expert's workers now."""

    def wish(self, expert: str) -> None:
        """A request went elsewhere, since the expert sleeps."""

    def expect(self, expert: str, likely: float) -> None:
        """So many requests more are expected within a minute."""


class NoWants:
    """Nobody hears it."""

    def waiting(self, expert: str, count: int) -> None: ...

    def wish(self, expert: str) -> None: ...

    def expect(self, expert: str, likely: float) -> None: ...


class Sleepers:
    """Of one file and its `replicas`, by expert. One that answers from another's workers sleeps when they do; `wants` hears of
    it under the other's name. `clock` is that of the workers' owner: seconds since 1970."""

    def __init__(
        self,
        file: ExpertsFile,
        replicas: Mapping[str, Sequence[Replica]],
        wants: Wants,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._sleepers = sleepers_of(file)
        self._turns = Turns(self._sleepers)
        launchers = {name: launcher_of(file, name) for name in file.experts}
        self._launcher = {e: found[0] for e, found in launchers.items() if found and found[0] in self._sleepers}
        self.launchers = tuple(dict.fromkeys(self._launcher.values()))
        self._file, self._replicas, self._wants, self._clock = file, replicas, wants, clock

    def __bool__(self) -> bool:
        return bool(self._launcher)

    def __contains__(self, expert: str) -> bool:
        return expert in self._launcher

    def asleep(self, expert: str) -> bool:
        """Whether no worker of it is awake, and one will be when it is wanted."""
        if expert not in self._launcher:
            return False
        states = {facts.state for facts in self._facts(expert)}
        return WorkerState.READY not in states and not SLEEPING.isdisjoint(states)

    def lost(self, expert: str) -> bool:
        """Whether it sleeps at times, and now is neither awake nor will be: it failed, or nobody runs it any more."""
        return expert in self._launcher and not (
            self.asleep(expert) or any(replica.address.url for replica in self._replicas[expert])
        )

    def expected(self, expert: str) -> float:
        """Seconds until one that is asleep is awake, as far as is known: what is left of its waking, or what that took last,
        after what is left of the turn of a rival."""
        return min(self._until_awake(self._launcher[expert], facts) for facts in self._facts(expert))

    def in_time(self, expert: str) -> bool:
        """Whether it is expected to be awake within the time that the file allows."""
        return self.expected(expert) <= self._file.experts[expert].wake_within

    def patience(self, expert: str) -> float:
        """Seconds that a request waits for it where nobody else is awake."""
        spec = self._file.experts[expert]
        return max(spec.queue.wait, spec.wake_within)

    def waiting(self, expert: str, queued: Callable[[str], int]) -> None:
        """The number of those who wait for the expert changed; `queued` tells it of each."""
        launcher = self._launcher[expert]
        self._wants.waiting(launcher, sum(map(queued, self.served_by(launcher))))

    def wish(self, expert: str) -> None:
        """A request for it goes elsewhere, and it is to be woken for those who come next."""
        self._wants.wish(self._launcher[expert])

    def expect(self, launcher: str, likely: float) -> None:
        """So many requests more are expected for its workers within a minute."""
        self._wants.expect(launcher, likely)

    def served_by(self, launcher: str) -> tuple[str, ...]:
        """The experts that answer from its workers, itself among them."""
        return tuple(expert for expert, other in self._launcher.items() if other == launcher)

    def _facts(self, expert: str) -> list[WorkerFacts]:
        addresses = (replica.address for replica in self._replicas[expert])
        return [address.facts for address in addresses if isinstance(address, LinkedAddress) and address.facts]

    def _until_awake(self, launcher: str, facts: WorkerFacts) -> float:
        cost = self._cost(launcher, facts)
        if facts.state is WorkerState.WAKING:
            return abs(cost - (self._clock() - facts.since))  # one that is late is expected to be as late again
        if facts.state not in SLEEPING:
            return float("inf")
        return cost + max((self._turn_left(rival) for rival in self._turns.rivals(launcher)), default=0.0)

    def _turn_left(self, rival: str) -> float:
        """Seconds that a rival still keeps the GPU, were it to have work for so long."""
        facts = self._facts(rival)
        state = state_of(one.state for one in facts)
        if not facts or state in (WorkerState.ASLEEP, WorkerState.STOPPING, WorkerState.FAILED):
            return 0.0
        cost, since = max((self._cost(rival, one), one.since) for one in facts)
        if state is not WorkerState.READY:
            return abs(cost - (self._clock() - since)) + linger(cost)
        now = self._replicas[rival][0].clock()
        works = any(r.work or (r.load and now < r.load_until and r.load.running) for r in self._replicas[rival])
        turn = longest_turn(cost) if works else linger(cost)
        return max(0.0, turn - (self._clock() - since))

    def _cost(self, launcher: str, facts: WorkerFacts) -> float:
        return self._sleepers[launcher].wake_seconds if facts.wake_seconds is None else facts.wake_seconds
