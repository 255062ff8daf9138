from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.usage import Usage, read_io_usage, read_message_usage, read_usage
from router.prices import Price

TOKENS = st.integers(0, 10_000_000)
PRICES = st.decimals(0, 100, places=4).map(float)
HOSTILE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)
    | st.sampled_from([10**18, 10**40, -(10**40), 10**400]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip
COUNTS = st.fixed_dictionaries(
    {},
    optional={
        "prompt_tokens": HOSTILE,
        "completion_tokens": HOSTILE,
        "prompt_tokens_details": st.fixed_dictionaries({}, optional={"cached_tokens": HOSTILE}) | HOSTILE,
        "completion_tokens_details": st.fixed_dictionaries({}, optional={"reasoning_tokens": HOSTILE}) | HOSTILE,
        "anything": HOSTILE,
    },
)


def usage_of(usage: Any) -> Usage | None:
    return read_usage(json.dumps({"id": "x", "usage": usage}).encode())


def test_the_counts_of_an_answer_are_read() -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "total_tokens": 150,
        "prompt_tokens_details": {"cached_tokens": 60, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 20},
    }
    assert usage_of(usage) == Usage(input=40, cached_input=60, output=50, reasoning=20)


@given(TOKENS, st.integers(-10, 20_000_000), TOKENS, st.integers(-10, 20_000_000))
def test_no_token_is_counted_twice(prompt: int, cached: int, output: int, reasoning: int) -> None:
    usage = usage_of(
        {
            "prompt_tokens": prompt,
            "completion_tokens": output,
            "prompt_tokens_details": {"cached_tokens": cached},
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        }
    )
    assert usage is not None
    assert usage.input + usage.cached_input == prompt
    assert usage.input >= 0
    assert usage.output == output
    assert 0 <= usage.cached_input <= max(0, cached)
    assert 0 <= usage.reasoning <= output


@pytest.mark.parametrize("details", [None, {}, {"cached_tokens": None}, {"audio_tokens": 5}])
def test_details_that_say_nothing_of_a_cache_mean_none(details: Any) -> None:
    usage = usage_of({"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": details})
    assert usage == Usage(input=9, output=1)


@pytest.mark.parametrize(
    "payload",
    [b"", b"[]", b"{", b"{}", b'{"usage":null}', b'{"usage":[]}', b'{"usage":"many"}', b'{"usage":{"prompt_tokens":"9"}}',
     b'{"usage":{"prompt_tokens":true}}', b'{"usage":{"prompt_tokens":1.5}}', b'\xff{"usage":{}}', b'{"id":' + b"[" * 100_000],
)  # fmt: skip
def test_what_cannot_be_read_is_no_usage(payload: bytes) -> None:
    assert read_usage(payload) is None


@pytest.mark.parametrize(
    "told", [{}, {"total_tokens": 50}, {"prompt_tokens": -5, "completion_tokens": 7}, {"prompt_tokens": None}]
)
def test_a_usage_that_says_nothing_is_unknown_and_not_nought(told: dict[str, Any]) -> None:
    assert usage_of(told) is None
    assert read_io_usage(json.dumps({"usage": told}).encode()) is None
    assert read_message_usage(json.dumps({"usage": told}).encode()) is None
    assert read_message_usage(json.dumps({"usage": told}).encode(), Usage(input=3)) == Usage(input=3)


def test_a_negative_part_is_nought() -> None:
    usage = usage_of({"prompt_tokens": 5, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": -1}})
    assert usage == Usage(input=5, output=7)


@settings(deadline=None)
@given(COUNTS | HOSTILE)
@example({"prompt_tokens": 10**400, "completion_tokens": 1})
def test_no_usage_object_breaks_the_reader_or_the_price(counts: Any) -> None:
    usage = usage_of(counts)
    if usage is not None:
        assert min(usage.input, usage.cached_input, usage.output, usage.reasoning) >= 0
        assert math.isfinite(usage.cost(Price(input=1.0, output=2.0)))


PRICED = st.builds(Price, input=PRICES, output=PRICES, cached_input=st.none() | PRICES, reasoning=st.none() | PRICES)


@given(TOKENS, TOKENS, TOKENS, TOKENS, PRICED)
def test_the_cost_is_right_to_the_micro_dollar(new: int, cached: int, said: int, reasoning: int, price: Price) -> None:
    cost = Usage(new, cached, said + reasoning, reasoning).cost(price)
    of_cached = price.input if price.cached_input is None else price.cached_input
    of_reasoning = price.output if price.reasoning is None else price.reasoning
    exact = new * Fraction(price.input) + cached * Fraction(of_cached)
    exact += said * Fraction(price.output) + reasoning * Fraction(of_reasoning)
    assert abs(Fraction(cost) - exact / 1_000_000) < Fraction(1, 1_000_000)


def test_a_known_bill() -> None:
    usage = Usage(input=400, cached_input=600, output=250, reasoning=100)
    assert usage.cost(Price(input=2.5, output=10.0, cached_input=1.25)) == pytest.approx(0.00425, abs=1e-12)
    assert usage.cost(Price(input=2.5, output=10.0)) == pytest.approx(0.005, abs=1e-12)
    assert usage.cost(Price(input=2.5, output=10.0, cached_input=0.0)) == pytest.approx(0.0035, abs=1e-12)


def test_reasoning_is_part_of_the_output_and_costs_as_much_unless_it_has_a_price() -> None:
    usage, price = Usage(5, 0, 100, reasoning=90), Price(input=1.0, output=3.0)
    assert usage.cost(price) == pytest.approx(Usage(5, 0, 100).cost(price), abs=1e-12)
    assert usage.cost(Price(input=1.0, output=3.0, reasoning=2.0)) == pytest.approx(
        (5 + 10 * 3 + 90 * 2) / 1e6, abs=1e-12
    )
    assert usage.cost(Price(input=1.0, output=3.0, reasoning=0.0)) == pytest.approx((5 + 10 * 3) / 1e6, abs=1e-12)
