"""What keeps costs from being counted is told at its place."""

from __future__ import annotations

from typing import Any

from gateway.checking.prices import prices
from tests.gateway.checking.files import places, said


def test_each_is_told_at_its_place() -> None:
    hour = {"price": {"gpu_hour": 2}}
    adapter = {"upstream": {"worker": "base", "adapter": {"name": "a", "path": "/a"}}}
    experts: dict[str, Any] = {
        "base": {"upstream": {"launch": {}}, **hour},
        "sql": adapter | hour,
        "free": {"price": None},
    }
    assert places(said(prices, experts, baseline="no-such-model")) == [
        "price-without-effect experts.sql.price", "unpriced experts.free", "baseline-unknown baseline"
    ]  # fmt: skip
    assert said(prices, {"a": {}, "b": {"price": {"input": 0, "output": 0}}}, baseline="gpt-4o") == []
