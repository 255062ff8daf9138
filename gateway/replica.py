"""Replica: one URL of an expert's upstream, what is known of its health, and the breaker that its failures open."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median
from typing import NamedTuple

from gateway.busy import Meter
from gateway.exchange import Outcome
from gateway.load import Load
from gateway.refusals import Refusal
from gateway.upstreams.base import Address, FixedAddress

FAILURES_TO_OPEN = 3
COOL_DOWN_SECONDS = 5.0
LONGEST_COOL_DOWN_SECONDS = 60.0
TRIAL_SECONDS = 10.0  # a trial that proved nothing for so long no longer keeps the next one back
BUSY_SECONDS = 1.0  # how long one that said it is full is spared, where it does not say
LONGEST_BUSY_SECONDS = 30.0
SLOW_SHARE = 0.25  # of its weight, for one that is much slower than its siblings
FIRST_TOKENS_KEPT = 64
LEAST_FIRST_TOKENS = 10  # fewer say nothing: one long prompt is no slow server
FIRST_TOKEN_SECONDS = 120.0  # what is older says nothing of today
# What is the replica's own fault. A client's 4xx, a 429 or a client that left says nothing about its health.
FAULTS = frozenset(
    {Outcome.CONNECT_ERROR, Outcome.TIMEOUT, Outcome.SERVER_ERROR, Outcome.STREAM_ERROR, Outcome.TRUNCATED}
)
ANSWERS = frozenset({Outcome.OK, Outcome.CLIENT_ERROR})


class State(StrEnum):
    """What a replica is to those who choose. EJECTED and DRAINING wait for their cool-down; a HALF_OPEN one is past it and
    takes one request that has to prove it well; a SLOW one gets a smaller share. The server of a LACKING one is well, and
    does not have the model."""

    UP = "up"
    DOWN = "down"
    LACKING = "lacking"
    EJECTED = "ejected"
    HALF_OPEN = "half_open"
    DRAINING = "draining"
    SLOW = "slow"


class Ticket(NamedTuple):
    """A request in flight at a replica: in which of its lives it began, whether it is the trial of a half-open one, and what the
    meter read then."""

    life: int
    trial: bool
    metered: float = 0.0


@dataclass(eq=False)
class Replica:
    """`name` is what metrics and logs call it, `model` is what its server calls the expert's; `up` is None until it was
    probed; `cap` bounds the requests in flight. Where its server has other experts too, those are `beside` it, and have the same
    `meter`. While it is `lacking` its server says that it does not have the model, and it is not asked.

    The breaker: FAILURES_TO_OPEN faults in a row, or one refusal by a server that drains, open it for a cool-down that
    doubles with each trip and that every further fault begins anew. Each trip begins a new life: what began before it
    neither closes the breaker, since a draining server finishes what it runs, nor counts against the server that came
    after. When the cool-down is over, one request is the trial; its first token lets the others in, its fault trips again.
    """

    name: str
    address: Address = field(repr=False)
    weight: float = 1.0
    cap: int | None = None
    metered: bool = False  # whether GET /metrics has vLLM's own figures
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    model: str = ""
    beside: Sequence[Replica] = field(default=(), repr=False)
    in_flight: int = 0
    up: bool | None = None
    lacking: bool = False
    failures: int = 0
    open_until: float = 0.0  # 0 while the breaker is closed
    trips: int = 0  # since it last did well
    life: int = 0
    cause: str | None = None  # of the last trip
    trial_until: float = 0.0  # until then nobody else is tried; 0 where no trial runs
    busy_until: float = 0.0
    slow: bool = False
    turns: float = 0.0  # how often it came first, for its weight
    last_outcome: Outcome | None = None
    answered: bool = False  # since the last probe
    load: Load | None = None
    load_others: float = 0.0  # of the requests in `load`, those that are not ours
    load_at: float = 0.0
    load_until: float = 0.0  # when `load` is stale
    first_tokens: deque[tuple[float, float]] = field(
        default_factory=lambda: deque(maxlen=FIRST_TOKENS_KEPT), repr=False
    )  # (when, TTFT in seconds)

    def __post_init__(self) -> None:
        # By its URL, not its place in the list: so every gateway, and this one after a reload, ranks it alike.
        known_by = self.address.url if isinstance(self.address, FixedAddress) else self.name
        self.identity = hashlib.blake2b(known_by.encode(), digest_size=16).digest()
        self.meter = Meter(self.clock)

    @property
    def available(self) -> bool:
        """Whether a request may be sent: it has an address and the model, the last probe, if any, found it well, it is not
        cooling down, and is not on trial."""
        return self.may_be_asked(self.clock())

    def may_be_asked(self, now: float) -> bool:
        """`available`, for who looks at many at once and knows what time it is."""
        if self.up is False or self.lacking or self.address.url is None:
            return False
        return not self.open_until or now >= max(self.open_until, self.trial_until)

    @property
    def promising(self) -> bool:
        """Whether it is worth waiting for: available, or on trial at this moment."""
        if self.up is False or self.lacking or self.address.url is None:
            return False
        return self.clock() >= self.open_until

    @property
    def full(self) -> bool:
        return self.cap is not None and self.in_flight >= self.cap

    @property
    def work(self) -> int:
        """Our requests in flight at its server: its own, and those of the experts beside it."""
        return self.in_flight + sum(other.in_flight for other in self.beside) if self.beside else self.in_flight

    @property
    def share(self) -> float:
        """Its weight in the choice at this moment."""
        return self.weight * SLOW_SHARE if self.slow else self.weight

    @property
    def retry_after(self) -> float:
        """Seconds until it may be asked again, as far as its breaker knows."""
        return max(0.0, max(self.open_until, self.trial_until) - self.clock())

    @property
    def state(self) -> State:
        if self.up is False or self.address.url is None:
            return State.DOWN
        if self.lacking:
            return State.LACKING
        if not self.open_until:
            return State.SLOW if self.slow else State.UP
        if self.clock() >= self.open_until:
            return State.HALF_OPEN
        return State.DRAINING if self.cause == Refusal.DRAINING else State.EJECTED

    def begin(self) -> Ticket:
        """One more request in flight. The first after a cool-down is the trial."""
        self.in_flight += 1
        trial = bool(self.open_until)
        if trial:
            self.trial_until = self.clock() + TRIAL_SECONDS
        return Ticket(self.life, trial, self.meter.begin())

    def end(self, ticket: Ticket) -> float:
        """The request is over, however it came out; to be called once a ticket. Returns its seconds of the server's time."""
        self.in_flight -= 1
        if ticket.trial and ticket.life == self.life:
            self.trial_until = 0.0
        return self.meter.end(ticket.metered)

    def first_token(self, ticket: Ticket, seconds: float) -> None:
        """Content arrived, `seconds` after the request was sent."""
        self.first_tokens.append((self.clock(), seconds))
        self.answered = True
        if ticket.trial and ticket.life == self.life and self.open_until:
            # Well enough for the others, not yet forgiven: the next fault opens the breaker again, for longer.
            self.open_until, self.trial_until, self.failures = 0.0, 0.0, FAILURES_TO_OPEN - 1

    def median_first_token(self, now: float) -> float | None:
        """The median TTFT of the last FIRST_TOKEN_SECONDS, None where too few are known."""
        recent = [seconds for when, seconds in self.first_tokens if now - when < FIRST_TOKEN_SECONDS]
        return median(recent) if len(recent) >= LEAST_FIRST_TOKENS else None

    def note(
        self,
        outcome: Outcome,
        ticket: Ticket | None = None,
        refusal: Refusal | None = None,
        retry_after: float | None = None,
    ) -> str | None:
        """Learn from an attempt; `ticket` None is one that began just now. Returns why it is out from now on, None if it is not."""
        now, old = self.clock(), ticket is not None and ticket.life != self.life
        self.last_outcome = outcome
        self.answered = self.answered or outcome in ANSWERS
        if refusal is Refusal.FULL or (outcome is Outcome.REJECTED and retry_after is not None):
            self.busy_until = now + min(BUSY_SECONDS if retry_after is None else retry_after, LONGEST_BUSY_SECONDS)
        elif refusal is Refusal.LOADING and not old:
            self.up = False
            return Refusal.LOADING
        elif refusal is Refusal.DRAINING and not old:
            return self._trip(now, Refusal.DRAINING)
        elif outcome is Outcome.OK and not old:
            self.forgive()
        elif outcome in FAULTS:
            return self._fault(now, old)
        return None

    def _fault(self, now: float, old: bool) -> str | None:
        if now < self.open_until:
            self.open_until = max(self.open_until, now + self._cool_down)
            return None
        if old:
            return None
        self.failures += 1
        return self._trip(now, "failures") if self.failures >= FAILURES_TO_OPEN else None

    def _trip(self, now: float, cause: str) -> str:
        self.trips += 1
        self.life += 1
        self.cause, self.trial_until, self.failures = str(cause), 0.0, max(self.failures, FAILURES_TO_OPEN)
        self.open_until = now + self._cool_down
        return str(cause)

    @property
    def _cool_down(self) -> float:
        doubled: float = COOL_DOWN_SECONDS * 2 ** min(self.trips - 1, 10)  # bounded before it is no float any more
        return min(doubled, LONGEST_COOL_DOWN_SECONDS)

    def forgive(self) -> None:
        """A clean slate: it did well, or another process answers in its place."""
        self.failures, self.open_until, self.trips, self.trial_until, self.cause = 0, 0.0, 0, 0.0, None

    def probe(self, up: bool) -> None:
        """Take in what GET /health said. One that was down and is back is another process, with a clean slate.

        One probe that failed says less than an answer that came since the one before: a busy server may be late with
        both. A second in a row does count.
        """
        if up and self.up is False:
            self.forgive()
            self.life += 1
        spared = not up and self.up is True and self.answered and self.address.url is not None
        self.answered = False
        if not spared:
            self.up = up

    def weigh(self, load: Load, good_for: float) -> None:
        """Take in what the server says of its load; it is stale after `good_for` seconds.

        A draining server that is another process than the one that drained is back.
        """
        now, before = self.clock(), self.load
        again = before is not None and None not in (before.process, load.process) and before.process != load.process
        if again and self.cause == Refusal.DRAINING:
            self.forgive()
            self.life += 1
        self.load, self.load_at, self.load_until = load, now, now + good_for
        self.load_others = max(0.0, load.running + load.waiting - self.work)
        self.meter.others(self.load_others, good_for)


def by_server(replicas: Iterable[Replica]) -> list[list[Replica]]:
    """Those that share an address, together."""
    groups: dict[object, list[Replica]] = {}
    for replica in replicas:
        address = replica.address
        same = address if isinstance(address, FixedAddress) else id(address)
        groups.setdefault(same, []).append(replica)
    return list(groups.values())
