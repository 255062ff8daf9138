"""Receipt: what a client may know of one finished request of its own. No key, address or prompt is in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec


class Decided(msgspec.Struct, frozen=True):
    """Who answered and why, as the answer's headers said it; no `expert` where none was asked. `requested` is the model that the
    client named. The `probabilities` are known as long as the process that decided has them in memory."""

    requested: str | None
    expert: str | None
    model: str | None
    domain: str | None
    confidence: float | None
    probabilities: dict[str, float] | None
    reason: str
    stage: str
    route_ms: float


class Tried(msgspec.Struct, frozen=True):
    """One attempt at one replica."""

    expert: str
    replica: str
    outcome: str
    seconds: float


class Tokens(msgspec.Struct, frozen=True):
    """By the expert's own count. `input` leaves out `cached_input`; `reasoning` is a part of `output`."""

    input: int
    cached_input: int
    output: int
    reasoning: int


class Cost(msgspec.Struct, frozen=True):
    """USD, None where it is not known. `usd` is by token prices; `estimated_usd` the share of the hours of experts that are paid by
    them."""

    usd: float | None
    estimated_usd: float | None
    baseline_usd: float | None
    dearest_usd: float | None
    saved_usd: float | None


class Timings(msgspec.Struct, frozen=True):
    """Seconds. `overhead` is what the gateway itself took; `ttft` is that of a stream."""

    seconds: float
    ttft: float | None
    overhead: float


class Receipt(msgspec.Struct, frozen=True, tag_field="object", tag="receipt"):
    """`caller` is the name of the key."""

    id: str
    caller: str
    endpoint: str
    stream: bool
    status: int
    outcome: str
    error_code: str | None
    started_at: datetime
    finished_at: datetime
    decision: Decided | None
    attempts: Sequence[Tried]
    usage: Tokens | None
    cost: Cost
    timings: Timings

    @classmethod
    def of(cls, row: Mapping[str, Any], probabilities: Mapping[str, float] | None = None) -> Receipt:
        """That of a request whose row in the ledger is, or is going to be, this. The ledger keeps no `probabilities`."""
        kinds = [row[f"{kind}_tokens"] for kind in ("input", "cached_input", "output", "reasoning")]
        return cls(
            id=row["id"],
            caller=row["caller"],
            endpoint=row["endpoint"],
            stream=row["stream"],
            status=row["status"],
            outcome=row["outcome"],
            error_code=row["error_code"],
            started_at=row["at"] - timedelta(seconds=row["seconds"]),
            finished_at=row["at"],
            decision=_decided(row, probabilities) if row["reason"] is not None else None,
            attempts=_ATTEMPTS.decode(row["attempts"]),
            usage=Tokens(*kinds) if None not in kinds else None,
            cost=_cost(row["cost_usd"], row["estimated_usd"], row["baseline_usd"], row["dearest_usd"]),
            timings=_timings(row["seconds"], row["ttft"], row["waited"]),
        )


def _decided(row: Mapping[str, Any], probabilities: Mapping[str, float] | None) -> Decided:
    confidence = row["confidence"]
    return Decided(
        requested=row["requested"],
        expert=row["expert"],
        model=row["model"],
        domain=row["domain"],
        confidence=None if confidence is None else round(confidence, 4),
        probabilities=None if probabilities is None else {domain: round(p, 4) for domain, p in probabilities.items()},
        reason=row["reason"],
        stage=row["stage"],
        route_ms=round(row["route_ms"], 3),
    )


def _cost(usd: float | None, estimated: float | None, baseline: float | None, dearest: float | None) -> Cost:
    paid = [part for part in (usd, estimated) if part is not None]
    return Cost(usd, estimated, baseline, dearest, baseline - sum(paid) if paid and baseline is not None else None)


def _timings(seconds: float, ttft: float | None, waited: float) -> Timings:
    return Timings(round(seconds, 6), None if ttft is None else round(ttft, 6), round(max(0.0, seconds - waited), 6))


_ATTEMPTS = msgspec.json.Decoder(list[Tried])
