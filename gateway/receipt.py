"""Receipt: what a client may know of one finished request of its own. No key, address or prompt is in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from gateway.weighed import Weighed


class Considered(msgspec.Struct, frozen=True):
    """One expert. `expected_quality` is Σ P(domain)·quality, 0 to 1, None where it was not weighed. Where it could not be chosen
    `refused` says why, and `cause` of which kind that is. `price` is in USD per million tokens, three in for one out, estimated
    where the expert is paid by the hour."""

    id: str
    expected_quality: float | None
    price: float | None
    price_estimated: bool
    cause: str | None
    refused: str | None


class Why(msgspec.Struct, frozen=True):
    """What the decision was made from.

    `chosen` is whom the router chose; the decision's `expert` is who answered. `passed_over` says why the chosen one was not asked.
    What was kept to: the `policy` and its `tolerance` (expected quality given away for a lower price), the `confidence_floor` below
    which `fallback` answers, and by stage the confidence that it is `sure_from`; None where an expert was asked for by name.
    `previous` is the expert of the turn before, `switched` why the chosen one is another. Beyond the `experts` told there were
    `left_out` more.
    """

    chosen: str
    policy: str | None
    tolerance: float | None
    confidence_floor: float | None
    fallback: str | None
    sure_from: dict[str, float]
    doubt: str | None
    language: str
    previous: str | None
    switched: str | None
    passed_over: str | None
    experts: Sequence[Considered]
    left_out: int


class Decided(msgspec.Struct, frozen=True):
    """Who answered and why, as the answer's headers said it; no `expert` where none was asked. `requested` is the model that the
    client named. `probabilities` are None where no domain was to be known, `why` and they where the ledger has them not."""

    requested: str | None
    expert: str | None
    model: str | None
    domain: str | None
    confidence: float | None
    probabilities: dict[str, float] | None
    reason: str
    stage: str
    route_ms: float
    why: Why | None


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
    def of(cls, row: Mapping[str, Any]) -> Receipt:
        """That of a request whose row in the ledger is, or is going to be, this."""
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
            decision=_decided(row) if row["reason"] is not None else None,
            attempts=_ATTEMPTS.decode(row["attempts"]),
            usage=Tokens(*kinds) if None not in kinds else None,
            cost=_cost(row["cost_usd"], row["estimated_usd"], row["baseline_usd"], row["dearest_usd"]),
            timings=_timings(row["seconds"], row["ttft"], row["waited"]),
        )


def _decided(row: Mapping[str, Any]) -> Decided:
    confidence, why = row["confidence"], row["why"]
    weighed = why if isinstance(why, Weighed | None) else Weighed.of(why)
    return Decided(
        requested=row["requested"],
        expert=row["expert"],
        model=row["model"],
        domain=row["domain"],
        confidence=None if confidence is None else round(confidence, 4),
        probabilities=weighed.probabilities if weighed else None,
        reason=row["reason"],
        stage=row["stage"],
        route_ms=round(row["route_ms"], 3),
        why=_why(weighed) if weighed else None,
    )


def _why(weighed: Weighed) -> Why:
    return Why(
        chosen=weighed.chosen,
        policy=weighed.policy,
        tolerance=weighed.tolerance,
        confidence_floor=weighed.floor,
        fallback=weighed.fallback,
        sure_from=weighed.sure,
        doubt=weighed.doubt,
        language=weighed.language,
        previous=weighed.previous,
        switched=weighed.switched,
        passed_over=weighed.passed_over,
        experts=[
            Considered(expert, quality, price, expert in weighed.estimated, *weighed.refused.get(expert, (None, None)))
            for expert, quality, price in weighed.options
        ],
        left_out=weighed.left_out,
    )


def _cost(usd: float | None, estimated: float | None, baseline: float | None, dearest: float | None) -> Cost:
    paid = [part for part in (usd, estimated) if part is not None]
    return Cost(usd, estimated, baseline, dearest, baseline - sum(paid) if paid and baseline is not None else None)


def _timings(seconds: float, ttft: float | None, waited: float) -> Timings:
    return Timings(round(seconds, 6), None if ttft is None else round(ttft, 6), round(max(0.0, seconds - waited), 6))


_ATTEMPTS = msgspec.json.Decoder(list[Tried])
