from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.commands.addquestions import numbers


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("all", [1, 2, 3, 4, 5]),
        (" NONE ", []),
        ("1,3-5", [1, 3, 4, 5]),
        ("5 2 2", [2, 5]),
        ("4-99", [4, 5]),
        ("0,6,-1,x,2-", []),
        ("5-1", []),
        ("1-999999999999", []),
    ],
)
def test_numbers_and_ranges_are_read(said: str, meant: list[int]) -> None:
    assert numbers(said, 5) == meant


@given(st.text(alphabet="0123456789-, alno"), st.integers(0, 20))
def test_no_number_is_made_up(said: str, most: int) -> None:
    found = numbers(said, most)
    assert found == sorted(set(found))
    assert set(found) <= set(range(1, most + 1))
