"""Rows of a ledger that no request made, and a look into its tables past all that reads them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import psycopg

from gateway.ledger import urls
from gateway.ledger.row import Row

THEN = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def row(number: int, **changes: Any) -> Row:
    """Of an answered request that was paid for by tokens."""
    made: Row = {
        "writer": 1,
        "number": number,
        "id": f"req-{number}",
        "at": THEN,
        "caller": "team-a",
        "endpoint": "chat.completions",
        "status": 200,
        "outcome": "ok",
        "error_code": None,
        "stream": False,
        "requested": "auto",
        "expert": "coder",
        "model": "coder-7b",
        "domain": "code",
        "confidence": 0.9,
        "reason": "best",
        "stage": "static",
        "attempts": "[]",
        "seconds": 1.5,
        "ttft": None,
        "route_ms": 0.4,
        "waited": 1.25,
        "input_tokens": 8,
        "cached_input_tokens": 3,
        "output_tokens": 4,
        "reasoning_tokens": 1,
        "cost_usd": 0.25,
        "estimated_usd": None,
        "baseline_usd": 0.5,
        "dearest_usd": 1.0,
        "energy_wh": 2.0,
        "prompt": None,
        "why": None,
    }
    return {**made, **changes}


def look(url: str, statement: str) -> list[tuple[Any, ...]]:
    """What a statement finds, by the databases' own drivers."""
    path = urls.file_of(url)
    if path is None:
        with psycopg.connect(url) as server:
            answer = server.execute(statement.encode())
            return answer.fetchall() if answer.description else []
    with closing(sqlite3.connect(path, timeout=30)) as file:
        found = file.execute(statement).fetchall()
        file.commit()
        return found
