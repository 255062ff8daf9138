from __future__ import annotations

from collections import Counter
from itertools import cycle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.authoring.authored import DOMAIN_OF_TOPIC, KINDS, STYLES, AuthoredRow
from router.authoring.balance import (
    LANGUAGE_ROWS,
    LEAST_OF_KIND,
    LEAST_ROWS,
    LENGTHS,
    SURFACE_SHARES,
    Balance,
    length_of,
    word_count,
)
from router.authoring.surface import SURFACES
from router.experts import BUILT_IN_DOMAINS

LANGUAGES = ["en", "de", "fr", "es", "it", "pt", "nl", "pl", "ru", "ja", "zh", "ko"]
WORDS = {"under 10": 5, "10 to 40": 25, "41 to 120": 80, "121 to 700": 200}
LOOKING = {
    "hasty spelling": "Whats that thing over there, and why is it there of all places?",
    "lower case": "who wrote these letters, and why were they never sent to anybody?",
    "capitals": "WHO WROTE THESE LETTERS, AND WHY WERE THEY NEVER SENT TO ANYBODY?",
    "no punctuation": "Who wrote these letters and why were they never sent to anybody",
    "LaTeX": "Is $x^2$ odd, I mean for an odd number and for no other one?",
    "Markdown": "Is `x` odd, I mean for an odd number and for no other one?",
    "code and prose": "Why is it that in C len(x) == 3, and in no other language?",
}


def row(text: str = "p", **fields: Any) -> AuthoredRow:
    return AuthoredRow("corpus/x.jsonl", 1, {"prompt": text, "domain": "code", **fields})


def balanced() -> list[AuthoredRow]:
    """As few rows as make a corpus in balance; of every style, topic and kind as many as it takes."""
    wanted: list[dict[str, str]] = [
        {"lang": language, "domain": domain}
        for language in LANGUAGES
        for domain in BUILT_IN_DOMAINS
        for _ in range(LANGUAGE_ROWS // 4)
    ]
    for number in range(LEAST_ROWS):
        domain = BUILT_IN_DOMAINS[number % 4]
        wanted += [{"domain": domain, "style": style} for style in sorted(STYLES - {"conversation"})]
        wanted += [{"domain": home, "topic": topic} for topic, home in DOMAIN_OF_TOPIC.items()]
        wanted += [{"domain": domain, "kind": kind} for kind in sorted(KINDS) if number < LEAST_OF_KIND]
    rows = [row("Word, " * words, **fields) for fields, words in zip(wanted, cycle(WORDS.values()), strict=False)]
    seen = [LOOKING[name] for name, share in SURFACE_SHARES.items() for _ in range(round(2 * share * len(rows)))]
    return rows + [row(text, domain=domain) for text, domain in zip(seen, cycle(BUILT_IN_DOMAINS), strict=False)]


def complaints(rows: list[AuthoredRow]) -> list[str]:
    return list(Balance.of(rows).complaints())


def without(rows: list[AuthoredRow], **fields: str) -> list[AuthoredRow]:
    """Less one row that has these fields."""
    at = next(i for i, row in enumerate(rows) if all(row.raw.get(name) == value for name, value in fields.items()))
    return rows[:at] + rows[at + 1 :]


# Counting


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        ("one  two\nthree", 3),
        ("def f(x): return x", 4),
        ("写一个快速排序程序", 4),
        ("Python で クイックソート を書いて", 7),
        ("เขียนฟังก์ชันเรียงลำดับ", 5),
        ("이 코드를 설명해 줘", 4),
    ],
)
def test_words_are_counted_and_where_none_are_spaced_estimated(text: str, words: int) -> None:
    assert word_count(text) == words


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (1, "under 10"),
        (9, "under 10"),
        (10, "10 to 40"),
        (40, "10 to 40"),
        (41, "41 to 120"),
        (120, "41 to 120"),
        (121, "121 to 700"),
        (700, "121 to 700"),
        (701, "over 700"),
    ],
)
def test_a_length_has_its_name(words: int, name: str) -> None:
    assert length_of("w " * words) == name


def test_rows_are_counted_by_what_they_are_and_by_domain() -> None:
    rows = [
        row(style="fix", lang="de"),
        row(style="fix", domain="math"),
        row("w " * 50, style="ask", topic="python"),
    ]
    balance = Balance.of(rows)
    assert balance.rows == 3
    assert balance.domains == Counter(code=2, math=1)
    assert balance.languages == {"en": Counter(code=1, math=1), "de": Counter(code=1)}
    assert balance.styles == {"fix": Counter(code=1, math=1), "ask": Counter(code=1)}
    assert balance.topics == {"python": Counter(code=1)}
    assert balance.kinds == {}
    assert {name: counts.total() for name, counts in balance.lengths.items()} == {
        "under 10": 2, "10 to 40": 0, "41 to 120": 1, "121 to 700": 0, "over 700": 0,
    }  # fmt: skip


def test_of_a_conversation_the_last_turn_counts() -> None:
    messages = [
        {"role": "user", "content": "w " * 200},
        {"role": "assistant", "content": "w"},
        {"role": "user", "content": "why?"},
    ]
    talk = AuthoredRow("f", 1, {"messages": messages, "domain": "bio", "kind": "followup"})
    assert Balance.of([talk]).lengths["under 10"] == Counter(bio=1)


@given(st.lists(st.sampled_from([row(style=style, domain=d) for style in ("fix", "ask") for d in ("bio", "math")])))
def test_every_row_is_counted_once(rows: list[AuthoredRow]) -> None:
    described = Balance.of(rows).described()
    for part in ("languages", "styles", "lengths"):
        assert sum(sum(counts.values()) for counts in described[part].values()) == len(rows) == described["rows"]


# What there should be


def test_nothing_is_said_of_a_corpus_in_balance_nor_of_an_empty_one() -> None:
    assert complaints(balanced()) == []
    assert complaints([]) == []


def test_a_style_a_topic_or_a_kind_that_is_too_rare_is_named() -> None:
    rows = balanced()
    assert complaints(without(rows, style="log")) == ["style log has 14 rows; 15 are wanted"]
    assert complaints(without(rows, topic="proof")) == ["topic proof has 14 rows; 15 are wanted"]
    assert complaints(without(rows, kind="tool")) == ["kind tool has 9 rows; 10 are wanted"]
    assert complaints([row for row in rows if row.raw.get("style") != "prove"]) == [
        "style prove has 0 rows; 15 are wanted"
    ]


def test_a_domain_with_too_small_or_too_large_a_share_is_named() -> None:
    rows = balanced()
    bio = [row for row in rows if row.domain == "bio"]
    others = [row for row in rows if row.domain != "bio"]
    for unbalanced in (others * 4 + bio, others + bio * 4):
        assert [said for said in complaints(unbalanced) if "15% to 40%" in said and said.startswith("bio has ")]
    assert not [said for said in complaints(others * 4 + bio * 4) if "15% to 40%" in said]


def test_too_few_languages_are_told() -> None:
    assert complaints(without(balanced(), lang="ko")) == ["11 languages have 40 rows; 12 are wanted"]


def test_a_language_that_lacks_a_domain_is_told() -> None:
    rows = [row for row in balanced() if (row.raw.get("lang"), row.domain) != ("de", "math")]
    rows += [row("word " * 20, domain="code", lang="de")] * 10
    assert complaints(rows) == ["math has 0% of the rows in de; 15% are wanted"]


@pytest.mark.parametrize("name", WORDS)
def test_a_length_that_is_too_rare_is_told(name: str) -> None:
    others = [row for row in balanced() if length_of(row.turns[-1]) != name]
    assert any(f"0.0% of the rows have {name} words" in said for said in complaints(others))


@pytest.mark.parametrize("name", SURFACES)
def test_a_surface_that_is_too_rare_is_told(name: str) -> None:
    others = [row for row in balanced() if row.turns != (LOOKING[name],)]
    assert complaints(others) == [f"0.00% of the rows have the surface {name}; {SURFACE_SHARES[name]:.2%} are wanted"]


def test_very_long_rows_are_counted_and_none_are_wanted() -> None:
    assert Balance.of([row("w " * 701)]).lengths["over 700"] == Counter(code=1)
    assert LENGTHS["over 700"][1] == 0


def test_alternates_are_counted_by_what_explains_them_and_are_no_complaint() -> None:
    rows = [
        row(alt=["math"], why="half"),
        row(alt=["math"]),
        row(domain="general", topic="physics", alt=["math"]),
        row(),
    ]
    assert Balance.of(rows).alternates == {
        "nothing": Counter(code=1), "rule of its topic": Counter(general=1), "why": Counter(code=1),
    }  # fmt: skip
    unlabelled = [row(), row(), row(domain="general", topic="physics"), row()]
    assert complaints(rows) == complaints(unlabelled)


def test_what_is_no_list_of_alternates_is_not_counted() -> None:
    assert Balance.of([row(alt=5), row(alt=[])]).alternates == {}
