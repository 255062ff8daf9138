"""Turns: when workers that sleep are woken and put to sleep again, those that share a GPU one after the other. A policy alone:
it is told what is seen and answers with orders.

Waking costs seconds, so that whoever is awake keeps the GPU while it has work; not for ever where others wait, and it is not
woken for each request: those that came meanwhile are answered together. In the words of polling systems this is exhaustive
service with a limit: served until it is empty, greedy (no idling while others wait) but for a short linger, and patient (it
stays where it is while nobody waits). Liu, Nain and Towsley, "On optimal polling policies" (1992), show the rule without the
limit and the linger to be best for like queues; the limit is for fairness, the linger for clients that ask again at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from gateway.workers.protocol import WorkerState
from router.experts import ExpertsFile

# Until one was measured: of a worker that is put to sleep by vLLM, and of one that is stopped and started.
WAKE_SECONDS, START_SECONDS = 5.0, 60.0
LEAST_COST_SECONDS = 5.0  # a turn is not shorter because waking is cheap: what runs has to end first
LONGEST_TURN = 4.0  # in wakes: so much of the time at least is for work, where all have more than enough of it
LINGER, LEAST_LINGER_SECONDS = (
    0.25,
    2.5,
)  # in wakes, and no less: so long without work ends a turn for which others wait
ASLEEP, READY, FAILED = WorkerState.ASLEEP, WorkerState.READY, WorkerState.FAILED


@dataclass(frozen=True)
class Sleeper:
    """An expert whose workers sleep: after so many seconds without work; on these GPUs; and awake, as long as nothing was
    measured, in `wake_seconds`. With no GPUs it shares none."""

    sleep_after: float
    gpus: frozenset[int] = frozenset()
    wake_seconds: float = START_SECONDS


@dataclass(frozen=True)
class Seen:
    """How an expert's workers do, all together: see `state_of`. Times are those of one clock.

    `busy`: they run or hold requests; `idle_since` is when they no longer did. `waiting` requests wait at the gateways, the
    first of them since `waiting_since`; `likely` more are expected within a minute. `wake_seconds` is what waking took last.
    """

    state: WorkerState
    busy: bool = False
    idle_since: float = 0.0
    waiting: int = 0
    waiting_since: float = 0.0
    likely: float = 0.0
    awake_since: float = 0.0
    wake_seconds: float | None = None

    @property
    def working(self) -> bool:
        return self.busy or self.waiting > 0

    @property
    def rests_since(self) -> float:
        """Since when it is awake and has nothing to do, where that is so."""
        return max(self.idle_since, self.awake_since)


class Order(NamedTuple):
    expert: str
    what: Literal["wake", "sleep"]


class Turns:
    """Of `experts`, in the order of the file. Two whose GPUs overlap are rivals: of those one is awake at a time."""

    def __init__(self, experts: Mapping[str, Sleeper]) -> None:
        self._experts = experts
        self._rivals = {
            name: frozenset(other for other in experts if other != name and sleeper.gpus & experts[other].gpus)
            for name, sleeper in experts.items()
        }
        self._old_news: dict[str, float] = {}  # what was likely when it fell asleep: it wakes for what is new
        self._turn_ended: dict[str, float] = {}  # those of its requests that still wait stand behind the others

    def first(self) -> list[str]:
        """Those that are started when all are: of rivals the first of the file."""
        started: list[str] = []
        for name in self._experts:
            if self._rivals[name].isdisjoint(started):
                started.append(name)
        return started

    def rivals(self, expert: str) -> frozenset[str]:
        return self._rivals[expert]

    def decide(self, now: float, seen: Mapping[str, Seen]) -> list[Order]:
        """What is to be done now; an order stands until `seen` shows that it was followed. `seen` has every expert."""
        orders = dict.fromkeys(self._clashing(seen) + self._rested(now, seen), "sleep")
        awake = {name for name in self._experts if seen[name].state is not ASLEEP}
        claims: list[str] = []  # of those who wait, oldest first: nobody who came later is woken in their way
        waiting = [name for name in self._experts if seen[name].state is ASLEEP and seen[name].waiting > 0]
        since = {name: max(seen[name].waiting_since, self._turn_ended.get(name, float("-inf"))) for name in waiting}
        for name in sorted(waiting, key=since.__getitem__):
            rivals = self._rivals[name]
            free = rivals.isdisjoint(claims)
            claims.append(name)
            if not free:
                continue
            if rivals.isdisjoint(awake):
                orders[name] = "wake"
                awake.add(name)
            else:
                over = [rival for rival in rivals & awake if self._turn_is_over(rival, now, seen[rival])]
                orders |= dict.fromkeys(over, "sleep")
        self._foresee(now, seen, awake, claims, orders)
        self._remember(now, seen, orders)
        return [Order(name, orders[name]) for name in self._experts if name in orders]  # type: ignore[arg-type]

    def next_look(self, now: float, seen: Mapping[str, Seen]) -> float | None:
        """When `decide` may answer otherwise though nothing else is seen; None where it never will."""
        times: list[float] = []
        for name, sleeper in self._experts.items():
            one, cost = seen[name], self._cost(name, seen[name])
            if one.state is READY:
                pauses = (sleeper.sleep_after, linger(cost), cost)
                times += [one.awake_since + longest_turn(cost), *(one.rests_since + pause for pause in pauses)]
        return min((time for time in times if time > now), default=None)

    def _rested(self, now: float, seen: Mapping[str, Seen]) -> list[str]:
        """Those that had nothing to do for long enough."""
        return [
            name
            for name, sleeper in self._experts.items()
            if seen[name].state is READY
            and not seen[name].working
            and now >= seen[name].rests_since + sleeper.sleep_after
        ]

    def _clashing(self, seen: Mapping[str, Seen]) -> list[str]:
        """Rivals that are awake together, as another file can have it: all but the one that was awake first."""
        kept: list[str] = []
        clashing: list[str] = []
        awake = [name for name in self._experts if seen[name].state is READY]
        for name in sorted(awake, key=lambda name: seen[name].awake_since):
            (kept if self._rivals[name].isdisjoint(kept) else clashing).append(name)
        return clashing

    def _turn_is_over(self, name: str, now: float, one: Seen) -> bool:
        """Whether it has to make room for another who waits. One that does not come up holds nothing."""
        if one.state is not READY:
            return one.state is FAILED
        cost = self._cost(name, one)
        if one.working:
            return now >= one.awake_since + longest_turn(cost)
        return now >= one.rests_since + linger(cost)

    def _foresee(
        self, now: float, seen: Mapping[str, Seen], awake: set[str], claims: list[str], orders: dict[str, str]
    ) -> None:
        """Wake those that are likely to be asked, on GPUs that nobody works on nor waits for."""
        likely = {
            name: seen[name].likely - self._old_news.get(name, 0.0)
            for name in self._experts
            if seen[name].state is ASLEEP and name not in orders
        }
        for name in sorted((name for name in likely if likely[name] >= 1), key=lambda name: -likely[name]):
            rivals = self._rivals[name]
            holders = rivals & awake
            if not rivals.isdisjoint(claims):
                continue
            if not holders:
                orders[name] = "wake"
                awake.add(name)
            elif all(self._rests(holder, now, seen[holder]) for holder in holders):
                orders |= dict.fromkeys(holders, "sleep")

    def _rests(self, name: str, now: float, one: Seen) -> bool:
        return one.state is READY and not one.working and now >= one.rests_since + self._cost(name, one)

    def _remember(self, now: float, seen: Mapping[str, Seen], orders: Mapping[str, str]) -> None:
        for name, what in orders.items():
            self._old_news[name] = seen[name].likely if what == "sleep" else 0.0
            if what == "sleep":
                self._turn_ended[name] = now
        for name, old in self._old_news.items():
            self._old_news[name] = min(old, seen[name].likely)

    def _cost(self, name: str, one: Seen) -> float:
        return self._experts[name].wake_seconds if one.wake_seconds is None else one.wake_seconds


def longest_turn(wake_seconds: float) -> float:
    """Seconds that one with work keeps a GPU for which others wait."""
    return LONGEST_TURN * max(wake_seconds, LEAST_COST_SECONDS)


def linger(wake_seconds: float) -> float:
    """Seconds that one without work keeps it."""
    return max(LINGER * wake_seconds, LEAST_LINGER_SECONDS)


def state_of(workers: Iterable[WorkerState]) -> WorkerState:
    """The state of an expert, given those of its workers, one or more: READY with one of them; ASLEEP when all are."""
    there = set(workers)
    order = (WorkerState.STOPPING, READY, WorkerState.WAKING, WorkerState.STARTING, FAILED)
    return next((state for state in order if state in there), ASLEEP)


def sleepers_of(file: ExpertsFile) -> dict[str, Sleeper]:
    """The experts of a file whose workers sleep."""
    sleepers = {}
    for name, spec in file.experts.items():
        launch = spec.upstream.launch
        if launch is not None and spec.sleep_after is not None:
            wakes = WAKE_SECONDS if launch.has("enable-sleep-mode") else START_SECONDS
            sleepers[name] = Sleeper(spec.sleep_after, frozenset(launch.gpus), wakes)
    return sleepers
