"""The price map as it is installed, and entries of our own beside it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from gateway.pricemap import ListPrice, list_price, public_price
from gateway.usage import Usage
from router.prices import Price


def test_the_map_is_read_without_importing_litellm() -> None:
    program = (
        "import sys; from gateway.pricemap import public_price; p = public_price('gpt-4o').price; "
        "print(p.input, p.output, p.cached_input, 'litellm' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2.5", "10.0", "1.25", "False"]


def test_a_model_that_the_map_does_not_know_has_no_price() -> None:
    assert public_price("a-model-of-our-own") is None


def test_a_model_that_is_not_priced_by_the_token_has_no_price() -> None:
    assert public_price("dall-e-3") is None


@pytest.mark.parametrize(("prompt", "usd"), [(200_000, 0.25 + 0.01), (200_001, 0.5000025 + 0.015)])
def test_a_prompt_beyond_a_bound_has_the_prices_of_its_tier(prompt: int, usd: float) -> None:
    gemini = public_price("gemini-2.5-pro")
    assert gemini is not None
    assert gemini.cost(Usage(input=prompt, output=1000)) == pytest.approx(usd, abs=1e-9)
    of_cached = (usd - (0.01 if prompt == 200_000 else 0.015)) / 10  # the cache is a tenth, and a part of the prompt
    assert gemini.cost(Usage(input=0, cached_input=prompt, output=0)) == pytest.approx(of_cached, abs=1e-9)


def test_the_highest_bound_that_is_passed_counts() -> None:
    tiers = {"input_cost_per_token_above_100k_tokens": 2e-6, "input_cost_per_token_above_200k_tokens": 3e-6}
    found = list_price(ENTRY | tiers)
    assert found is not None
    assert [found.cost(Usage(input=n)) * 10 for n in (100_000, 200_000, 300_000)] == pytest.approx([1.0, 4.0, 9.0])


ENTRY = {"input_cost_per_token": 1e-6, "output_cost_per_token": 4e-6, "cache_read_input_token_cost": 5e-7}


def test_what_a_tier_does_not_say_is_as_below_it() -> None:
    tier = {"input_cost_per_token_above_128k_tokens": 2e-6, "input_cost_per_token_above_128k_tokens_priority": 9e-6}
    assert list_price(ENTRY | tier) == ListPrice(
        Price(input=1.0, output=4.0, cached_input=0.5),
        ((128_000, Price(input=2.0, output=4.0, cached_input=0.5)),),
    )


def test_reasoning_has_a_price_of_its_own_only_where_that_is_another() -> None:
    tier = {"input_cost_per_token_above_200k_tokens": 2e-6, "output_cost_per_token_above_200k_tokens": 6e-6}
    alike, apart = (list_price(ENTRY | tier | {"output_cost_per_reasoning_token": usd}) for usd in (4e-6, 3e-6))
    assert alike is not None
    assert apart is not None
    assert [p.reasoned for p in (alike.price, alike.above[0][1])] == [4.0, 6.0]
    assert [p.reasoned for p in (apart.price, apart.above[0][1])] == [3.0, 3.0]


@pytest.mark.parametrize("changes", [
    {"input_cost_per_token": None}, {"output_cost_per_token": None}, {"input_cost_per_token": -1e-6},
    {"input_cost_per_token": []}, {"input_cost_per_token": "a lot"}, {"output_cost_per_token": 1e400},
])  # fmt: skip
def test_what_no_price_can_be_is_none(changes: dict[str, Any]) -> None:
    assert list_price(ENTRY | changes) is None
