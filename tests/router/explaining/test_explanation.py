from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.explaining.explanation import LINE, Explanation, Features, Term, arithmetic, line_of, visible
from router.explaining.occlusion import Piece


def term(domain: str, probability: float, quality: float) -> Term:
    return Term(domain, probability, quality, probability * quality)


def test_the_sum_is_written_out_the_largest_product_first() -> None:
    terms = [term("math", 0.12, 0.5), term("code", 0.83, 0.9), term("bio", 0.05, 0.4)]
    assert arithmetic(terms) == "0.90×0.83 code + 0.50×0.12 math + 0.40×0.05 bio = 0.827"


def test_what_hardly_counts_is_left_out_of_what_is_written_but_not_of_the_sum() -> None:
    assert arithmetic([term("code", 0.991, 0.5), term("bio", 0.009, 1.0)]) == "0.50×0.99 code + … = 0.504"
    assert arithmetic([]) == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain [b]text[/b]", "plain [b]text[/b]"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x9b2J\x07\x00", "\\x9b2J\\x07\\x00"),
        ("a\u202eb\u2066c\u200bd\ufeff", "a\\u202eb\\u2066c\\u200bd\\ufeff"),
        ("half \ud83d of it", "half \\ud83d of it"),
        ("a\u3164b\uffa0c\u2800d\u115fe\U000e0100", "a\\u3164b\\uffa0c\\u2800d\\u115fe\\U000e0100"),
        ("\N{BLACK HEART SUIT}\ufe0f", "\N{BLACK HEART SUIT}\ufe0f"),
        ("two\nlines\tand\u2028more", "two lines and more"),
        ("می\u200cخواهم 👩\u200d💻 ကျွန်တော်", "می\u200cخواهم 👩\u200d💻 ကျွန်တော်"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text(st.characters(), max_size=400))
def test_a_line_is_one_short_harmless_line_whatever_the_text(text: str) -> None:
    line = line_of(text)
    assert len(line) <= LINE
    assert all(c.isprintable() or c in "\u200c\u200d" for c in line)
    assert line.encode("utf-8").decode("utf-8").splitlines() in ([], [line])


def test_a_long_text_ends_in_an_ellipsis() -> None:
    assert line_of("word " * 1000).endswith("word word…")
    assert line_of("x" * LINE) == "x" * LINE


def test_its_description_is_json_with_the_names_of_the_fields() -> None:
    piece = Piece("a", 1 / 3)
    features = Features("m", "static", "code", (piece,), (piece,), ())
    described = Explanation("why", "a", None, (), (), features, None, None).described()
    assert json.loads(json.dumps(described)) == described
    assert set(described) == {"why", "text", "policy", "stages", "experts", "features", "nearest", "conversation"}
    assert described["features"]["pieces"] == [{"text": "a", "effect": 0.333333}]
    assert described["features"]["opposing"] == []
