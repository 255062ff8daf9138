from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.conversation import routed_text
from router.dataset import (
    CORPUS,
    HELD_OUT_SHARE,
    Row,
    corpus_hash,
    domains_of,
    load_corpus,
    message_text,
    read_rows,
    training_rows,
    user_turns,
)
from router.errors import CorpusError
from router.experts import BUILT_IN_DOMAINS, Domain, ExpertsFile, parse_experts

STYLES = {
    *("abstract", "ask", "chat", "compare", "data", "exam", "explain", "fix", "homework", "log", "options", "plan"),
    *("prove", "search", "summarise", "ticket", "translate", "word", "write"),
}
LEAST_ROWS = 600
SOME = [Row("a", "code"), Row("b", "math", frozenset({"code"})), Row("c", "code")]


@pytest.fixture(scope="module")
def authored() -> dict[str, list[dict[str, Any]]]:
    """The rows of the corpus as they were written, by file."""
    files = sorted(CORPUS.glob("*.jsonl"))
    return {path.stem: [json.loads(line) for line in path.read_text("utf-8").splitlines()] for path in files}


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), "utf-8")
    return path


# The authored corpus


def test_the_corpus_has_one_file_for_each_built_in_domain(authored: dict[str, list[dict[str, Any]]]) -> None:
    assert sorted(authored) == sorted(BUILT_IN_DOMAINS)


def test_every_row_of_the_corpus_is_in_the_file_of_its_domain(authored: dict[str, list[dict[str, Any]]]) -> None:
    assert {(name, row["domain"]) for name, rows in authored.items() for row in rows} == {(n, n) for n in authored}


def test_the_corpus_is_large_enough_and_evenly_spread(authored: dict[str, list[dict[str, Any]]]) -> None:
    sizes = [len(rows) for rows in authored.values()]
    assert min(sizes) >= LEAST_ROWS
    assert max(sizes) <= 1.5 * min(sizes)


def test_a_row_of_the_corpus_has_the_keys_that_it_needs_and_no_others(
    authored: dict[str, list[dict[str, Any]]],
) -> None:
    for row in (row for rows in authored.values() for row in rows):
        assert (
            {"prompt", "domain", "lang", "style"} <= row.keys() <= {"prompt", "domain", "lang", "style", "why", "alt"}
        )
        assert row["prompt"].strip()
        assert row["why"].strip() if "why" in row else True


def test_every_style_of_the_corpus_is_one_of_the_set(authored: dict[str, list[dict[str, Any]]]) -> None:
    assert {row["style"] for rows in authored.values() for row in rows} == STYLES


def test_every_language_of_the_corpus_is_a_code_and_english_leads(authored: dict[str, list[dict[str, Any]]]) -> None:
    languages = Counter(row["lang"] for rows in authored.values() for row in rows)
    assert all(re.fullmatch(r"[a-z]{2}", language) for language in languages)
    assert languages.most_common(1)[0][0] == "en"


def test_every_language_of_the_corpus_is_there_in_every_domain(authored: dict[str, list[dict[str, Any]]]) -> None:
    found = {name: {row["lang"] for row in rows} for name, rows in authored.items()}
    assert len({frozenset(languages) for languages in found.values()}) == 1


def test_the_other_right_domains_of_a_row_are_known_and_not_its_own(authored: dict[str, list[dict[str, Any]]]) -> None:
    for row in (row for rows in authored.values() for row in rows if "alt" in row):
        assert row["alt"]
        assert set(row["alt"]) <= set(BUILT_IN_DOMAINS) - {row["domain"]}


def test_no_prompt_stands_twice_in_the_corpus(authored: dict[str, list[dict[str, Any]]]) -> None:
    prompts = Counter(" ".join(row["prompt"].lower().split()) for rows in authored.values() for row in rows)
    assert [prompt for prompt, count in prompts.items() if count > 1] == []
    texts = Counter(row.text for row in load_corpus())
    assert [text for text, count in texts.items() if count > 1] == []


def test_the_corpus_is_read_whole(authored: dict[str, list[dict[str, Any]]]) -> None:
    assert len(load_corpus()) == sum(map(len, authored.values()))


def test_every_domain_of_the_corpus_is_both_trained_on_and_measured() -> None:
    held = Counter(row.domain for row in load_corpus() if row.held_out)
    kept = Counter(row.domain for row in load_corpus() if not row.held_out)
    for domain in BUILT_IN_DOMAINS:
        assert HELD_OUT_SHARE / 2 < held[domain] / (held[domain] + kept[domain]) < HELD_OUT_SHARE * 2


# Rows


def test_a_row_holds_what_its_line_says(tmp_path: Path) -> None:
    full = {"prompt": " p  q ", "domain": "code", "lang": "de", "style": "fix", "alt": ["math"]}
    more = {"part": "hard", "tags": ["typos"], "id": 7, "of": "6", "unheard": "of"}
    path = lines(tmp_path / "x.jsonl", {**full, **more}, {"prompt": "r", "domain": "bio"})
    assert list(read_rows(path)) == [
        Row("p q", "code", frozenset({"math"}), "de", "fix", "hard", frozenset({"typos"}), "7", "6"),
        Row("r", "bio"),
    ]


def test_a_row_may_be_a_conversation(tmp_path: Path) -> None:
    messages = [
        {"role": "system", "content": "You are a lawyer."},
        {"role": "user", "content": "What is a monad?"},
        {"role": "assistant", "content": "A burrito."},
        {"role": "user", "content": [{"type": "text", "text": "why?"}, {"type": "image_url", "image_url": {}}]},
    ]
    (row,) = read_rows(lines(tmp_path / "x.jsonl", {"messages": messages, "domain": "code"}))
    assert row.text == routed_text(["What is a monad?", "why?"])


def test_a_compressed_file_is_read_as_well(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress('{"prompt": "größe", "domain": "code"}\n'.encode()))
    assert [row.text for row in read_rows(path)] == ["größe"]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "no json",
        '{"prompt": "p", "domain": "code"',
        "[]",
        "5",
        "null",
        '"prompt"',
        {"domain": "code"},
        {"prompt": "p"},
        {"prompt": "", "domain": "code"},
        {"prompt": " \n ", "domain": "code"},
        {"messages": [], "domain": "code"},
        {"messages": [{"role": "assistant", "content": "p"}], "domain": "code"},
        {"messages": "p", "domain": "code"},
        {"messages": ["p"], "domain": "code"},
        {"messages": None, "domain": "code"},
        {"prompt": None, "domain": "code"},
        {"prompt": 5, "domain": "code"},
        {"prompt": ["p"], "domain": "code"},
        {"prompt": "p", "domain": "code", "alt": 5},
    ],
    ids=str,
)
def test_a_wrong_row_is_refused_with_file_and_line(tmp_path: Path, line: object) -> None:
    path = lines(tmp_path / "mine.jsonl", {"prompt": "p", "domain": "code"}, line)
    with pytest.raises(CorpusError, match=r"^mine\.jsonl:2: not a row with domain and prompt or messages"):
        list(read_rows(path))


def test_the_rows_before_a_wrong_one_are_given(tmp_path: Path) -> None:
    rows = read_rows(lines(tmp_path / "mine.jsonl", {"prompt": "p", "domain": "code"}, "wrong"))
    assert next(rows).text == "p"
    with pytest.raises(CorpusError):
        next(rows)


def test_a_file_that_is_not_in_utf_8_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes('{"prompt": "größe", "domain": "code"}\n'.encode("latin-1"))
    with pytest.raises(CorpusError, match=r"mine\.jsonl"):
        list(read_rows(path))


@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_a_compressed_file_that_was_cut_off_is_refused_by_name(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "mine.jsonl.gz"
    data = gzip.compress(b"".join(b'{"prompt": "p%d", "domain": "code"}\n' % i for i in range(500)))
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(CorpusError, match=r"mine\.jsonl\.gz"):
        list(read_rows(path))


def test_a_file_that_only_claims_to_be_compressed_is_refused_by_name(tmp_path: Path) -> None:
    path = lines(tmp_path / "mine.jsonl.gz", {"prompt": "p", "domain": "code"})
    with pytest.raises(CorpusError, match=r"mine\.jsonl\.gz"):
        list(read_rows(path))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
MESSAGES = st.lists(
    st.dictionaries(st.sampled_from(["role", "content"]), st.just("user") | VALUES, max_size=2) | VALUES, max_size=3
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "prompt": VALUES,
            "messages": MESSAGES | VALUES,
            "domain": VALUES,
            "alt": VALUES,
            "tags": VALUES,
            "id": VALUES,
            "of": VALUES,
        },
    )
)
@settings(deadline=None, max_examples=80)
def test_no_row_raises_anything_but_a_corpus_error(tmp_path_factory: pytest.TempPathFactory, raw: object) -> None:
    path = lines(tmp_path_factory.getbasetemp() / "any.jsonl", raw)
    try:
        (row,) = read_rows(path)
    except CorpusError:
        return
    assert row.text


def test_a_corpus_is_every_file_of_its_folder(tmp_path: Path) -> None:
    lines(tmp_path / "b.jsonl", {"prompt": "second", "domain": "b"})
    lines(tmp_path / "a.jsonl", {"prompt": "first", "domain": "a"})
    lines(tmp_path / "notes.txt", "no row")
    assert [row.text for row in load_corpus(tmp_path)] == ["first", "second"]


def test_an_empty_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no training prompts"):
        load_corpus(tmp_path)


def test_a_row_accepts_its_domain_and_the_alternates() -> None:
    row = Row("t", "code", frozenset({"math"}))
    assert [row.accepts(domain) for domain in BUILT_IN_DOMAINS] == [True, True, False, False]


@given(st.text(), st.sampled_from(BUILT_IN_DOMAINS), st.sampled_from(BUILT_IN_DOMAINS))
@settings(deadline=None)
def test_whether_a_row_is_held_out_depends_on_its_text_alone(text: str, one: str, other: str) -> None:
    assert Row(text, one).held_out == Row(text, other, frozenset({one}), "de", "fix", id="7").held_out


def test_about_the_share_that_is_meant_is_held_out() -> None:
    held = sum(Row(f"prompt {i}", "code").held_out for i in range(4000)) / 4000
    assert held == pytest.approx(HELD_OUT_SHARE, abs=0.02)


def test_a_row_with_half_a_surrogate_pair_is_held_out_or_not_like_any_other(tmp_path: Path) -> None:
    (row,) = read_rows(lines(tmp_path / "x.jsonl", '{"prompt": "smile \\ud83d", "domain": "general"}'))
    assert row.held_out in (True, False)


# Conversations


def test_only_what_the_user_said_counts() -> None:
    messages = [
        {"role": role, "content": role} for role in ("system", "developer", "user", "assistant", "tool", "user")
    ]
    assert user_turns(messages) == ["user", "user"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("plain", "plain"),
        ([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}], "one\ntwo"),
        (
            [{"type": "image_url", "image_url": {"url": "data:"}}, {"type": "text", "text": "what is this"}],
            "what is this",
        ),
        ([], ""),
        (None, ""),
        (5, ""),
        ({"text": "not a list"}, ""),
        (["loose", {"text": 5}, {"text": None}, {"text": "kept"}], "kept"),
    ],
)
def test_the_text_of_a_message_is_its_string_or_its_text_parts(content: object, text: str) -> None:
    assert message_text(content) == text


# Training sets


def experts(domains: str, extra: str = "") -> ExpertsFile:
    return parse_experts(
        f"version: 1\n{extra}\nexperts:\n  a: {{model: m, domains: [{domains}], upstream: {{embedded: smollm2}}}}\n"
    )


LEGAL = "domains: {legal: {examples: [tort  law, b, c, d, e]}}"


def test_without_a_file_the_whole_corpus_is_trained_on() -> None:
    assert training_rows(None, SOME) == SOME
    assert training_rows() == load_corpus()


def test_only_the_domains_of_the_file_are_trained_on() -> None:
    assert training_rows(experts("math"), SOME) == [SOME[1]]
    assert {row.domain for row in training_rows(experts("code, bio"))} == {"code", "bio"}


def test_the_examples_of_the_file_are_trained_on_as_they_will_be_routed() -> None:
    rows = training_rows(experts("code, legal", LEGAL), SOME)
    assert rows == [SOME[0], SOME[2], *(Row(text, "legal") for text in ("tort law", "b", "c", "d", "e"))]


def test_examples_of_a_built_in_domain_join_its_corpus() -> None:
    rows = training_rows(experts("code", "domains: {code: {examples: [mine]}}"), SOME)
    assert [row.text for row in rows] == ["a", "c", "mine"]


@given(st.permutations(SOME))
def test_the_hash_of_a_corpus_does_not_depend_on_the_order_of_rows(rows: list[Row]) -> None:
    assert corpus_hash(rows) == corpus_hash(SOME)
    assert re.fullmatch("[0-9a-f]{12}", corpus_hash(rows))


@pytest.mark.parametrize(
    "other",
    [
        SOME[:2],
        [*SOME, SOME[0]],
        [Row("A", "code"), *SOME[1:]],
        [Row("a", "bio"), *SOME[1:]],
        [Row("a", "code", frozenset({"math"})), *SOME[1:]],
    ],
)
def test_the_hash_of_a_corpus_changes_with_texts_labels_and_alternates(other: list[Row]) -> None:
    assert corpus_hash(other) != corpus_hash(SOME)


def test_what_is_not_trained_on_does_not_change_the_hash() -> None:
    assert corpus_hash([Row("a", "code", language="de", style="fix", id="1")]) == corpus_hash([Row("a", "code")])


@given(st.lists(st.sampled_from([*BUILT_IN_DOMAINS, "zoo", "art", "Law"]), min_size=1))
@settings(deadline=None)
def test_the_labels_of_rows_come_in_the_order_that_an_experts_file_has(domains: list[str]) -> None:
    file = ExpertsFile.model_construct(version=1, experts={}, domains=dict.fromkeys(domains, Domain()))
    assert domains_of(Row("t", domain) for domain in domains) == file.domain_names
