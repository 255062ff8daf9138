"""What models cost elsewhere, by the price map that litellm carries, read as data: litellm itself is not imported."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gateway.usage import Usage
from router.prices import PER_MILLION, Price

PRICE_MAP = "model_prices_and_context_window_backup.json"
INPUT, OUTPUT, CACHED = "input_cost_per_token", "output_cost_per_token", "cache_read_input_token_cost"
REASONING = "output_cost_per_reasoning_token"
_TIER = re.compile(rf"{INPUT}(_above_(\d+)k_tokens)")


@dataclass(frozen=True, slots=True)
class ListPrice:
    """`above` has what a request costs whose prompt is longer than so many tokens: all of it then, largest first."""

    price: Price
    above: tuple[tuple[int, Price], ...] = ()

    def cost(self, usage: Usage) -> float:
        """USD."""
        prompt = usage.input + usage.cached_input
        return usage.cost(next((price for tokens, price in self.above if prompt > tokens), self.price))


def public_price(model: str) -> ListPrice | None:
    """What `model` costs by its provider's list; None where the map does not have it, or not by the token."""
    entry = _entry(model)
    return None if entry is None else list_price(entry)


def list_price(entry: Mapping[str, Any]) -> ListPrice | None:
    """The price in an entry of the map; None where there is none by the token."""
    tiers = [(int(found[2]) * 1000, found[1]) for key in entry if (found := _TIER.fullmatch(key))]
    try:
        above = tuple((tokens, _price(entry, suffix)) for tokens, suffix in sorted(tiers, reverse=True))
        return ListPrice(_price(entry), above)
    except (TypeError, ValueError):  # of which pydantic's is one
        return None


def _price(entry: Mapping[str, Any], tier: str = "") -> Price:
    """Of a tier what it says itself, else what holds below it. Raises TypeError or ValueError where it is not by the token."""

    def usd(key: str) -> Any:
        per_token = entry.get(key + tier, entry.get(key))
        return None if per_token is None else float(per_token) * PER_MILLION

    # Where reasoning costs as much as output it goes up with it.
    apart = entry.get(REASONING) != entry.get(OUTPUT)
    return Price(
        input=usd(INPUT), output=usd(OUTPUT), cached_input=usd(CACHED), reasoning=usd(REASONING) if apart else None
    )


def _entry(model: str) -> Mapping[str, Any] | None:
    found = importlib.util.find_spec("litellm")
    if found is None or not found.submodule_search_locations:
        return None
    try:
        text = (Path(found.submodule_search_locations[0]) / PRICE_MAP).read_bytes()
        raw = msgspec.json.decode(text, type=dict[str, msgspec.Raw]).get(model)  # thousands, of which one is read
        entry = None if raw is None else msgspec.json.decode(raw)
    except (OSError, msgspec.DecodeError):
        return None
    return entry if isinstance(entry, dict) else None
