"""A finished exchange as a row of the ledger."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from gateway.exchange import Exchange

MAX_PROMPT = 20_000  # characters
Row = dict[str, Any]  # by the columns of gateway.ledger.tables.requests
_encode = msgspec.json.Encoder().encode


def row_of(exchange: Exchange, writer: int, number: int, prompts: bool = False) -> Row:
    """`writer` and `number` make it the only row of its kind. Of the prompt there is something only with `prompts`. `why` is
    gateway.weighed.Reasons: what is made of them is made where the row is written, or read.

    What the client says of itself is in `id`, of which asgi.py lets only safe characters through, and in `requested`, which is
    left out where no model has that name: whatever a client has put there by mistake is no business of the ledger's.
    """
    decision, usage, expert, charge = exchange.decision, exchange.usage, exchange.expert, exchange.charge
    scores = decision.scores if decision else None
    query = exchange.query if decision else None
    attempts = [
        {"expert": a.expert, "replica": a.replica, "outcome": a.outcome, "seconds": round(a.seconds, 4)}
        for a in exchange.attempts
    ]
    first = exchange.first_token if exchange.stream else None
    return {
        "writer": writer,
        "number": number,
        "id": exchange.id,
        "at": datetime.now(UTC),
        "caller": exchange.caller,
        "endpoint": exchange.endpoint,
        "status": exchange.status,
        "outcome": str(exchange.outcome),
        "error_code": exchange.error_code,
        "stream": exchange.stream,
        "requested": query.requested_model if query else None,
        "expert": exchange.expert_id,
        "model": expert.upstream_model if expert else None,
        "domain": scores.domain if scores else None,
        "confidence": scores.confidence if scores else None,
        "reason": _reason(exchange),
        "stage": decision.stage if decision else None,
        "attempts": _encode(attempts).decode(),
        "seconds": exchange.seconds,
        "ttft": first - exchange.started if first is not None else None,
        "route_ms": decision.seconds * 1000 if decision else None,
        "waited": exchange.waited,
        "input_tokens": usage.input if usage else None,
        "cached_input_tokens": usage.cached_input if usage else None,
        "output_tokens": usage.output if usage else None,
        "reasoning_tokens": usage.reasoning if usage else None,
        "cost_usd": charge.cost,
        "estimated_usd": charge.estimated,
        "baseline_usd": charge.baseline,
        "dearest_usd": charge.dearest,
        "energy_wh": charge.energy_wh,
        "prompt": _kept(query.text) if prompts and query else None,
        "why": (decision, exchange.passed_over[1] if exchange.passed_over else None) if decision else None,
    }


def _reason(exchange: Exchange) -> str | None:
    """As the response's header says it."""
    decision = exchange.decision
    if decision is None:
        return None
    return decision.reason if exchange.expert_id in (None, decision.expert) else "fallback"


def _kept(prompt: str) -> str:
    """PostgreSQL takes no NUL."""
    return prompt[:MAX_PROMPT].replace("\0", "�")
