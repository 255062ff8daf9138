"""Exchange: everything that one request was, from its first byte to its last. Finished exactly once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from gateway.costs import NO_CHARGE, NO_TARIFF, Charge, Occupied, Tariff
from gateway.usage import Usage
from router.decision import Decision, Query
from router.experts import Expert

log = logging.getLogger("moe_gateway")


class Outcome(StrEnum):
    """How an attempt, and in the end the exchange, came out."""

    OK = "ok"
    CLIENT_ERROR = "client_error"
    CONNECT_ERROR = "connect_error"
    TIMEOUT = "timeout"
    REJECTED = "rejected"
    SERVER_ERROR = "server_error"
    STREAM_ERROR = "stream_error"
    TRUNCATED = "truncated"
    CANCELLED = "cancelled"


class Phase(StrEnum):
    """Where a request is; the label of moe_client_disconnects_total."""

    ROUTING = "routing"
    WAITING = "waiting"
    STREAMING = "streaming"


CLIENT_CLOSED_REQUEST = 499  # nginx's status for a client that left before its answer: seen in metrics and logs only


@dataclass(slots=True)
class Attempt:
    """One try at one replica. `outcome` is None while it runs; `seconds` is then 0. `traced` are the headers that tell the
    server of its trace, None where there is none."""

    expert: str
    replica: str
    started: float
    outcome: Outcome | None = None
    seconds: float = 0.0
    traced: Mapping[str, str] | None = None


class Trace(Protocol):
    """What is told of an exchange while it runs, where it is traced."""

    @property
    def id(self) -> str | None:
        """32 hexadecimal digits; None where it is not recorded."""

    def attempt(self, attempt: Attempt, expert: Expert | None) -> Mapping[str, str]:
        """One begins; returns the headers that go up with it."""


Observer = Callable[["Exchange"], None]


@dataclass(slots=True)
class Exchange:
    """One request. Times are seconds of time.perf_counter, but for `started_at`, which are since 1970; `first_token` is None until
    content arrived. `tariff` has the prices of the generation that decided it; by them it is charged when it is finished."""

    id: str
    endpoint: str
    observers: Sequence[Observer] = ()
    started: float = field(default_factory=time.perf_counter)
    started_at: float = field(default_factory=time.time)
    tariff: Tariff = NO_TARIFF
    caller: str = "anonymous"
    stream: bool = False
    phase: Phase = Phase.ROUTING
    query: Query | None = field(default=None, repr=False)  # what the router was asked, the prompt in it
    decision: Decision | None = None
    decided: float | None = None  # when the decision was there
    trace: Trace | None = None
    expert_id: str | None = None
    expert: Expert | None = None
    attempts: list[Attempt] = field(default_factory=list)
    passed_over: tuple[str, str] | None = None  # the chosen expert, where it sleeps and another was asked, and why
    usage: Usage | None = None
    occupied: list[Occupied] = field(default_factory=list)
    charge: Charge = NO_CHARGE
    status: int = 0
    outcome: Outcome | None = None
    error_code: str | None = None
    first_token: float | None = None
    last_token: float | None = None
    waited: float = 0.0
    finished: float | None = None
    _waiting: int = 0
    _waiting_since: float = 0.0

    def begin(self, expert_id: str, expert: Expert) -> None:
        """Turn to an expert: what one before it said or used is not this one's."""
        self.expert_id, self.expert = expert_id, expert
        self.usage = self.first_token = self.last_token = None

    def attempt(self, expert: str, replica: str) -> Attempt:
        """Begin an attempt; it must be ended by end_attempt."""
        attempt = Attempt(expert, replica, time.perf_counter())
        if self.trace is not None:
            attempt.traced = self.trace.attempt(attempt, self.expert)
        self.attempts.append(attempt)
        return attempt

    def took(self, expert_id: str, expert: Expert, seconds: float) -> None:
        """So much of the time of an expert's server, whether it answered or not."""
        if expert.gpu_price or expert.energy:
            self.occupied.append(Occupied(expert_id, expert, seconds))

    def end_attempt(self, attempt: Attempt, outcome: Outcome) -> None:
        """The first end counts; later ones change nothing."""
        if attempt.outcome is None:
            attempt.outcome = outcome
            attempt.seconds = time.perf_counter() - attempt.started
            said = {"request_id": self.id, "replica": attempt.replica, "outcome": outcome, "seconds": attempt.seconds}
            log.debug("attempt ended", extra=said)

    def waiting(self) -> Exchange:
        """Time inside `with exchange.waiting():` is spent waiting for others, the upstream or a slow client, and is no overhead
        of ours. Two attempts at once wait at the same time: what overlaps counts once."""
        return self

    def __enter__(self) -> None:
        if not self._waiting:
            self._waiting_since = time.perf_counter()
        self._waiting += 1

    def __exit__(self, *_: object) -> None:
        self._waiting -= 1
        if not self._waiting:
            self.waited += time.perf_counter() - self._waiting_since

    def answered_by(self, attempt: Attempt | None) -> None:
        """Of two attempts at once this one answered: it stands last, as the one that a request ends with does."""
        if attempt is not None and attempt is not self.attempts[-1]:
            self.attempts = [a for a in self.attempts if a is not attempt] + [attempt]

    def token(self) -> None:
        """Content arrived from the expert."""
        self.last_token = time.perf_counter()
        if self.first_token is None:
            self.first_token = self.last_token

    @property
    def cost(self) -> float | None:
        """USD by token prices, None where the price or the usage is not known."""
        price = self.expert.token_price if self.expert is not None else None
        return None if self.usage is None or price is None else self.usage.cost(price)

    @property
    def trace_id(self) -> str | None:
        """Of a trace that is recorded, else None."""
        return None if self.trace is None else self.trace.id

    @property
    def seconds(self) -> float:
        return (self.finished or time.perf_counter()) - self.started

    def finish(self, outcome: Outcome, status: int) -> None:
        """Close the books and tell the observers. Only the first call does anything."""
        if self.finished is not None:
            return
        self.outcome, self.status = outcome, status
        for attempt in self.attempts:
            self.end_attempt(attempt, Outcome.CANCELLED)
        self.finished = time.perf_counter()
        answered = (self.expert_id, self.expert) if self.expert_id is not None and self.expert is not None else None
        self.charge = self.tariff.charge(answered, self.usage, self.decision, self.occupied)
        for observer in self.observers:
            try:
                observer(self)
            except Exception:  # the books of one observer must not close those of the others, nor fail the answer
                log.exception("an observer failed", extra={"request_id": self.id})
