"""Rounds of load: every way in turn, again and again, so that what else the machine does meets all of them alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

import psutil

from tests.benchmarks.serving.bodies import Bodies
from tests.benchmarks.serving.load import NoLoadError, load
from tests.benchmarks.serving.ways import AUTO, Way, stages

LONGER = (1, 4)
ENOUGH = 2  # answers for every client


@dataclass(frozen=True)
class Plan:
    """`seconds` of load for every way, kind of request and number of clients, `rounds` times."""

    kinds: Sequence[str]
    clients: Sequence[int]
    rounds: int
    seconds: int


@dataclass(frozen=True)
class Sample:
    """One load on one way. Latencies and CPU seconds a request in seconds, memory in megabytes.

    `others` is the share of the machine's CPU time that went to neither the load nor any of the servers: the noise.
    """

    way: str
    kind: str
    clients: int
    rate: float
    p50: float
    p99: float
    cpu: float
    resident: float
    failed: int
    others: float


@dataclass
class Run:
    """All samples of a run, in their order, and how many decisions each stage of the router made for `auto`."""

    samples: list[Sample] = field(default_factory=list)
    stages: Counter[str] = field(default_factory=Counter)


def run(ways: Sequence[Way], plan: Plan, bodies: Bodies, say: Callable[[str], None] = lambda line: None) -> Run:
    """Raises BadAnswerError where a way does not carry its answers whole, NoLoadError where there is no load."""
    for way, kind in product(ways, plan.kinds):
        way.check(kind)
    made = Run()
    for number in range(plan.rounds):
        for kind, clients in product(plan.kinds, plan.clients):
            for way in ways:
                before = stages(way) if way.name == AUTO else Counter()
                made.samples.append(_enough(way, kind, clients, plan.seconds, bodies, ways))
                if way.name == AUTO:
                    made.stages.update(stages(way) - before)
        say(f"round {number + 1} of {plan.rounds} is done")
    return made


def _enough(way: Way, kind: str, clients: int, seconds: int, bodies: Bodies, ways: Sequence[Way]) -> Sample:
    """A sample, and a longer one in its place where hardly any answer came: what was begun and not ended would count too much.

    Raises NoLoadError.
    """
    for longer in LONGER:
        sample = _sample(way, kind, clients, seconds * longer, bodies, ways)
        if sample is not None and sample.rate * seconds * longer >= ENOUGH * clients:
            return sample
    if sample is None:
        raise NoLoadError(f"{way.name} gave not one answer within {seconds * LONGER[-1]} s")
    return sample


def _sample(way: Way, kind: str, clients: int, seconds: int, bodies: Bodies, ways: Sequence[Way]) -> Sample | None:
    path, begin = bodies.path(way.model, kind), bodies.next(way.model)
    servers = {id(one.server): one.server for one in ways}.values()
    machine, ours, own = _machine(), sum(server.use().cpu for server in servers), way.server.use().cpu
    children = psutil.Process().cpu_times()
    found = load(way.url, path, begin, clients, seconds)
    used = way.server.use()
    after, loaded = _machine(), psutil.Process().cpu_times()
    bodies.asked(way.model, found.asked)
    if not found.requests:
        return None
    spent = sum(server.use().cpu for server in servers) - ours
    spent += loaded.children_user + loaded.children_system - children.children_user - children.children_system
    others = max(0.0, after.busy - machine.busy - spent) / max(after.total - machine.total, 1e-9)
    return Sample(
        way.name,
        kind,
        clients,
        found.rate,
        found.p50,
        found.p99,
        (used.cpu - own) / found.requests,
        used.resident,
        found.failed,
        others,
    )


@dataclass(frozen=True)
class _Machine:
    busy: float
    total: float


def _machine() -> _Machine:
    """CPU seconds of the machine since it started; what a hypervisor took counts as busy."""
    times = psutil.cpu_times()
    total = sum(times) - times.guest - times.guest_nice
    return _Machine(total - times.idle - times.iowait, total)


def of(samples: Sequence[Sample], way: str, kind: str, clients: int) -> Iterator[Sample]:
    """The samples of one cell of the table, round by round."""
    return (s for s in samples if (s.way, s.kind, s.clients) == (way, kind, clients))
