"""Experts that take turns on GPUs, in made-up time: requests come, orders take as long as they take, and every event is kept."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.workers.protocol import WorkerState
from gateway.workers.turns import Order, Seen, Sleeper, Turns

ASLEEP, WAKING, READY, STOPPING, FAILED = (
    WorkerState.ASLEEP,
    WorkerState.WAKING,
    WorkerState.READY,
    WorkerState.STOPPING,
    WorkerState.FAILED,
)


@dataclass(eq=False)
class Request:
    """Comes at `at` and runs for `seconds`; gives up after `patience`. A client that `again` asks `think` seconds later."""

    at: float
    expert: str
    seconds: float = 1.0
    patience: float = float("inf")
    again: int = 0
    think: float = 0.0
    began: float | None = None
    left: bool = False

    @property
    def wait(self) -> float:
        return (self.began if self.began is not None else float("inf")) - self.at


@dataclass
class _Expert:
    state: WorkerState = ASLEEP
    since: float = 0.0
    running: int = 0
    idle_since: float = 0.0
    queue: list[Request] = field(default_factory=list)
    waiting_since: float = 0.0
    likely: float = 0.0
    took: float | None = None
    switching: float = 0.0


@dataclass(frozen=True)
class Event:
    """`before` is what was seen of everybody when the order was given, or when the state changed."""

    at: float
    expert: str
    what: str
    before: Mapping[str, Seen]


class World:
    """`wakes` are the seconds of each expert's next wakings, the last one lasting; a negative one fails after so long. `grace`
    is how long a failed one rests before it is tried again."""

    def __init__(
        self,
        sleepers: Mapping[str, Sleeper],
        turns: Turns | None = None,
        wakes: Mapping[str, Sequence[float]] | None = None,
        stop_seconds: float = 0.0,
        grace: float = 5.0,
    ) -> None:
        self.turns = turns or Turns(sleepers)
        self.sleepers, self.experts = sleepers, {name: _Expert() for name in sleepers}
        self.events: list[Event] = []
        self.requests: list[Request] = []
        self.now = 0.0
        self._wakes = {name: list((wakes or {}).get(name, [10.0])) for name in sleepers}
        self._stop_seconds, self._grace = stop_seconds, grace
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def play(self, requests: Iterable[Request], end: float, likely: Iterable[tuple[float, str, float]] = ()) -> World:
        """Until `end`; `likely` are (when, expert, how much from then on)."""
        for request in requests:
            self._at(request.at, lambda request=request: self._arrive(request))  # type: ignore[misc]
        for when, name, much in likely:
            self._at(when, lambda name=name, much=much: self._expect(name, much))  # type: ignore[misc]
        self._decide()
        while self._heap and self._heap[0][0] <= end:
            self.now, _, happen = heapq.heappop(self._heap)
            happen()
            while self._heap and self._heap[0][0] == self.now:
                heapq.heappop(self._heap)[2]()
            self._decide()
        self.now = end
        return self

    def count(self, what: str, expert: str | None = None) -> int:
        return sum(event.what == what and expert in (None, event.expert) for event in self.events)

    def seen(self) -> dict[str, Seen]:
        return {
            name: Seen(
                state=one.state,
                busy=one.running > 0,
                idle_since=one.idle_since,
                waiting=len(one.queue),
                waiting_since=one.waiting_since,
                likely=one.likely,
                awake_since=one.since,
                wake_seconds=one.took,
            )
            for name, one in self.experts.items()
        }

    def _at(self, when: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (when, next(self._order), happen))

    def _decide(self) -> None:
        for _ in range(100):
            orders = self.turns.decide(self.now, self.seen())
            if not orders:
                break
            for order in orders:
                self._follow(order)
        else:
            raise AssertionError("orders without end")
        look = self.turns.next_look(self.now, self.seen())
        if look is not None:
            self._at(look, lambda: None)

    def _follow(self, order: Order) -> None:
        one = self.experts[order.expert]
        self.events.append(Event(self.now, order.expert, order.what, self.seen()))
        if order.what == "wake":
            assert one.state is ASLEEP
            self._wake(order.expert)
        else:
            assert one.state in (READY, FAILED)
            self._become(order.expert, STOPPING)
            if not one.running:
                self._at(self.now + self._stop_seconds, lambda: self._become(order.expert, ASLEEP, STOPPING))

    def _wake(self, name: str) -> None:
        wakes = self._wakes[name]
        seconds = wakes.pop(0) if len(wakes) > 1 else wakes[0]
        self._become(name, WAKING)
        self._at(self.now + abs(seconds), lambda: self._woken(name, seconds))

    def _woken(self, name: str, seconds: float) -> None:
        one = self.experts[name]
        one.switching += abs(seconds)
        if seconds < 0:
            self._become(name, FAILED)
            self._at(self.now + self._grace, lambda: self._try_again(name))
            return
        one.took = seconds
        self._become(name, READY)
        for request in one.queue:
            self._run(request)
        one.queue.clear()

    def _try_again(self, name: str) -> None:
        if self.experts[name].state is FAILED:
            self._wake(name)

    def _become(self, name: str, state: WorkerState, only: WorkerState | None = None) -> None:
        one = self.experts[name]
        if only is None or one.state is only:
            one.state, one.since = state, self.now
            self.events.append(Event(self.now, name, str(state), self.seen()))

    def _arrive(self, request: Request) -> None:
        one = self.experts[request.expert]
        self.requests.append(request)
        if one.state is READY:
            self._run(request)
            return
        if not one.queue:
            one.waiting_since = self.now
        one.queue.append(request)
        if request.patience < float("inf"):
            self._at(self.now + request.patience, lambda: self._leave(request))

    def _leave(self, request: Request) -> None:
        queue = self.experts[request.expert].queue
        if request in queue:
            queue.remove(request)
            request.left = True

    def _run(self, request: Request) -> None:
        request.began = self.now
        self.experts[request.expert].running += 1
        self._at(self.now + request.seconds, lambda: self._done(request))

    def _done(self, request: Request) -> None:
        one = self.experts[request.expert]
        one.running -= 1
        if not one.running:
            one.idle_since = self.now
            if one.state is STOPPING:
                name = request.expert
                self._at(self.now + self._stop_seconds, lambda: self._become(name, ASLEEP, STOPPING))
        if request.again:
            following = Request(
                self.now + request.think, request.expert, request.seconds, again=request.again - 1, think=request.think
            )
            self._at(following.at, lambda: self._arrive(following))

    def _expect(self, name: str, much: float) -> None:
        self.experts[name].likely = much


def state_spans(world: World, name: str) -> list[tuple[WorkerState, float, float]]:
    """(state, from, to) of one expert, in order."""
    changes: list[Any] = [
        (event.at, WorkerState(event.what))
        for event in world.events
        if event.expert == name and event.what not in ("wake", "sleep")
    ]
    begins = [(0.0, ASLEEP), *changes]
    ends = [*(at for at, _ in changes), world.now]
    return [(state, begin, end) for (begin, state), end in zip(begins, ends, strict=True)]
