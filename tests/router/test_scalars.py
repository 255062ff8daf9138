from __future__ import annotations

import pytest

from router.scalars import plain_value


@pytest.mark.parametrize(
    ("text", "value"),
    [("64", 64), ("0.5", 0.5), ("1e3", 1000.0), ("true", True), ("yes", "yes"), ("", None), ("~", None), ("null", None)]
    + [(text, text) for text in ("a", "a: b", "[1]", "=", "<<", "2026-01-01", "&a", "0xg", "9" * 500)],
)
def test_a_text_without_quotes_is_what_yaml_takes_it_for(text: str, value: object) -> None:
    found = plain_value(text)
    assert (found, type(found)) == (value, type(value))
