from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.authoring.surface import SURFACES, surfaces_of


@pytest.mark.parametrize(
    ("text", "surfaces"),
    [
        ("Who wrote these letters?", []),
        ("Whats teh diffrence?", ["hasty spelling"]),
        ("DNA, in a word?", []),
        ("who wrote these letters?", ["lower case"]),
        ("why?", []),
        ("WHO WROTE THESE LETTERS?", ["capitals"]),
        ("SQL?", []),
        ("谁写了这些信 SQL SERVER 2019 的用法?", []),
        ("क्या यह सही है? abc", []),
        ("Who wrote these letters", ["no punctuation"]),
        ("これは 何 の 本です。", []),
        (r"Is \frac{1}{2} odd?", ["LaTeX"]),
        ("It costs $5_000 or $6.", ["LaTeX"]),
        ("Why C:\\Users\\Tom?", []),
        ("**Is** it odd?", ["Markdown"]),
        ("- One thing.\n- Another thing.", ["Markdown"]),
        ("A - one thing.\nB - another.", []),
        ("Why is it that in C len(x) == 3?", ["code and prose"]),
        ("Len(x) == 3;", []),
        ("```\nlen(x)\n```", ["Markdown"]),
    ],
)
def test_a_text_looks_like_what_it_is(text: str, surfaces: list[str]) -> None:
    assert surfaces_of(text) == surfaces


@given(st.text())
def test_every_text_can_be_looked_at(text: str) -> None:
    assert set(surfaces_of(text)) <= set(SURFACES)
