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
    ALTERNATES,
    BARE,
    CORPUS,
    HELD_OUT_SHARE,
    INHERITED,
    SAME_TOPIC,
    Example,
    Row,
    corpus_hash,
    domains_of,
    examples_of,
    load_corpus,
    message_text,
    read_rows,
    training_rows,
    user_turns,
)
from router.errors import CorpusError
from router.experts import BUILT_IN_DOMAINS, Domain, ExpertsFile, parse_experts

STYLES = {
    *("abstract", "ask", "chat", "command", "compare", "complete", "data", "exam", "explain", "fix", "homework", "log"),
    *("options", "passage", "plan", "prove", "roleplay", "search", "summarise", "ticket", "translate", "word", "write"),
}
KINDS = {"followup", "switch", "continue", "mixed", "tool", "system", "detour", "long", "retry"}
TALK = "conversations"
LEAST_ROWS = 2500
SOME = [Row("a", "code"), Row("b", "math", frozenset({"code"})), Row("c", "code")]


Authored = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def corpus() -> list[Row]:
    """Every row of the corpus as it is read."""
    return load_corpus()


@pytest.fixture(scope="module")
def authored() -> Authored:
    """The rows of the corpus as they were written, by file."""
    files = sorted(CORPUS.glob("*.jsonl"))
    return {path.stem: [json.loads(line) for line in path.read_text("utf-8").splitlines()] for path in files}


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), "utf-8")
    return path


# The authored corpus


def prompts_of(authored: Authored) -> Authored:
    """The files of single prompts."""
    return {name: rows for name, rows in authored.items() if name != TALK}


def test_the_corpus_has_one_file_for_each_built_in_domain_and_one_of_conversations(authored: Authored) -> None:
    assert sorted(authored) == sorted([*BUILT_IN_DOMAINS, TALK])


def test_every_prompt_of_the_corpus_is_in_the_file_of_its_domain(authored: Authored) -> None:
    alone = prompts_of(authored)
    assert {(name, row["domain"]) for name, rows in alone.items() for row in rows} == {(n, n) for n in alone}


def test_the_corpus_is_large_enough_and_evenly_spread(authored: Authored) -> None:
    sizes = [len(rows) for rows in prompts_of(authored).values()]
    assert min(sizes) >= LEAST_ROWS
    assert max(sizes) <= 2 * min(sizes)
    talks = Counter(row["domain"] for row in authored[TALK])
    assert set(talks) == set(BUILT_IN_DOMAINS)
    assert max(talks.values()) <= 2 * min(talks.values())


def test_a_row_of_the_corpus_has_the_keys_that_it_needs_and_no_others(authored: Authored) -> None:
    for name, rows in authored.items():
        needed = {"domain", "lang", "style"} | ({"messages", "topic", "kind"} if name == TALK else {"prompt"})
        for row in rows:
            assert needed <= row.keys() <= needed | {"why", "alt", "topic"}
            assert row["why"].strip() if "why" in row else True
            assert row["topic"].strip() if "topic" in row else True
            assert row["prompt"].strip() if name != TALK else row["messages"][-1]["content"].strip()


def test_every_style_of_the_corpus_is_one_of_the_set(authored: Authored) -> None:
    assert {row["style"] for rows in prompts_of(authored).values() for row in rows} == STYLES


def test_every_conversation_is_of_a_known_kind_and_ends_with_the_user(authored: Authored) -> None:
    assert {row["kind"] for row in authored[TALK]} == KINDS >= SAME_TOPIC | BARE
    for row in authored[TALK]:
        assert {message["role"] for message in row["messages"]} <= {"system", "user", "assistant", "tool"}
        assert any(message["role"] == "user" for message in row["messages"])


def test_every_language_of_the_corpus_is_a_code_and_english_leads(authored: Authored) -> None:
    languages = Counter(row["lang"] for rows in authored.values() for row in rows)
    assert all(re.fullmatch(r"[a-z]{2}", language) for language in languages)
    assert languages.most_common(1)[0][0] == "en"


def test_every_language_of_the_corpus_is_there_in_every_domain(authored: Authored) -> None:
    found = {name: {row["lang"] for row in rows} for name, rows in prompts_of(authored).items()}
    assert len({frozenset(languages) for languages in found.values()}) == 1
    assert {row["lang"] for row in authored[TALK]} <= found["code"]


def test_the_other_right_domains_of_a_row_are_known_and_not_its_own(authored: Authored) -> None:
    for row in (row for rows in authored.values() for row in rows if "alt" in row):
        assert row["alt"]
        assert set(row["alt"]) <= set(BUILT_IN_DOMAINS) - {row["domain"]}


def test_no_prompt_stands_twice_in_the_corpus(authored: Authored, corpus: list[Row]) -> None:
    prompts = Counter(" ".join(row["prompt"].lower().split()) for rows in prompts_of(authored).values() for row in rows)
    assert [prompt for prompt, count in prompts.items() if count > 1] == []
    texts = Counter(row.text for row in corpus)
    assert [text for text, count in texts.items() if count > 1] == []


def test_nothing_that_is_measured_is_trained_on(corpus: list[Row]) -> None:
    """Not even as a turn of a conversation."""
    taught = {example.text for row in corpus if not row.held_out for example in examples_of(row)}
    measured = {row.text for row in corpus if row.held_out and len(row.turns) < 2}
    assert taught & measured == set()


def test_the_corpus_is_read_whole(authored: Authored, corpus: list[Row]) -> None:
    assert len(corpus) == sum(map(len, authored.values()))


def test_every_domain_of_the_corpus_is_both_trained_on_and_measured(corpus: list[Row]) -> None:
    held = Counter(row.domain for row in corpus if row.held_out)
    kept = Counter(row.domain for row in corpus if not row.held_out)
    for domain in BUILT_IN_DOMAINS:
        assert HELD_OUT_SHARE / 2 < held[domain] / (held[domain] + kept[domain]) < HELD_OUT_SHARE * 2


# Rows


def test_a_row_holds_what_its_line_says(tmp_path: Path) -> None:
    full = {"prompt": " p  q ", "domain": "code", "lang": "de", "style": "fix", "alt": ["math"]}
    more = {
        "part": "hard",
        "tags": ["typos"],
        "id": 7,
        "of": "6",
        "source": "s",
        "topic": "t",
        "kind": "k",
        "un": "heard",
    }
    path = lines(tmp_path / "x.jsonl", {**full, **more}, {"prompt": "r", "domain": "bio"})
    assert list(read_rows(path)) == [
        Row(
            *("p q", "code", frozenset({"math"}), "de", "fix", "hard", frozenset({"typos"})),
            *("7", "6", "s", "t", "k", ("p q",)),
        ),
        Row("r", "bio", turns=("r",)),
    ]


def test_a_conversation_keeps_the_users_turns_and_their_labels(tmp_path: Path) -> None:
    said = [("user", "Sort a list"), ("assistant", "sorted(x)"), ("user", " "), ("user", "And  mitosis?")]
    messages = [{"role": role, "content": content} for role, content in said]
    row = {"messages": messages, "domain": "bio", "turn_domains": ["code", "code", "bio"]}
    (read,) = read_rows(lines(tmp_path / "x.jsonl", row))
    assert (read.turns, read.turn_domains) == (("Sort a list", "And mitosis?"), ("code", "bio"))
    with pytest.raises(CorpusError, match=r"x.jsonl:1: .*2 labels for 3 user turns"):
        list(read_rows(lines(tmp_path / "x.jsonl", row | {"turn_domains": ["code", "bio"]})))


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


def test_without_a_file_the_whole_corpus_is_trained_on(corpus: list[Row]) -> None:
    assert training_rows(None, SOME) == SOME
    assert [row.text for row in training_rows()] == [row.text for row in corpus]


def test_every_built_in_domain_is_trained_on_whoever_serves_it() -> None:
    assert training_rows(experts("math"), SOME) == training_rows(experts("code, bio"), SOME) == SOME


def test_the_examples_of_the_file_are_trained_on_as_they_will_be_routed() -> None:
    rows = training_rows(experts("code, legal", LEGAL), SOME)
    assert rows == [*SOME, *(Row(text, "legal") for text in ("tort law", "b", "c", "d", "e"))]


def test_examples_of_a_built_in_domain_join_its_corpus() -> None:
    rows = training_rows(experts("code", "domains: {code: {examples: [mine]}}"), SOME)
    assert rows == [*SOME, Row("mine", "code")]


# Examples


def told(row: Row) -> list[tuple[str, dict[str, float]]]:
    """The texts that a row teaches, and the domains of each."""
    return [(example.text, {d: round(s, 6) for d, s in example.shares.items() if s}) for example in examples_of(row)]


def talk(kind: str, alternates: frozenset[str] = frozenset()) -> Row:
    turns = ("Sort a list", "thanks", "and reversed?")
    return Row(" ".join(turns), "code", alternates, "de", topic="algorithms", kind=kind, turns=turns)


def test_a_prompt_teaches_its_text() -> None:
    row = Row("a", "code", language="de", topic="t", turns=("a",))
    assert list(examples_of(row)) == [Example("a", {"code": 1.0}, "t", "de", row.held_out)]
    assert told(Row("a", "zoo")) == [("a", {"zoo": 1.0})]


def test_alternates_have_a_share_of_the_label_together() -> None:
    shares = {"math": round(1 - ALTERNATES, 6), "code": round(ALTERNATES / 2, 6), "bio": round(ALTERNATES / 2, 6)}
    assert told(Row("a", "math", frozenset({"code", "bio"}))) == [("a", shares)]
    assert told(Row("a", "math", frozenset({"math"}))) == [("a", {"math": 1.0})]


def test_where_every_domain_is_right_all_have_the_same() -> None:
    everywhere = Row("hello", "general", frozenset({"code", "math", "bio"}))
    assert told(everywhere) == [("hello", dict.fromkeys(BUILT_IN_DOMAINS, 0.25))]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_conversation_teaches_its_last_turn_and_its_first_where_that_has_the_same_domain(kind: str) -> None:
    texts = [text for text, _ in told(talk(kind))]
    assert texts == (["Sort a list"] if kind in SAME_TOPIC else []) + ["and reversed?"]
    assert told(talk(kind))[0][1] == {"code": 1.0} or kind not in SAME_TOPIC


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_bare_follow_up_is_taught_to_say_little(kind: str) -> None:
    last = told(talk(kind))[-1][1]
    if kind in BARE:
        assert last == {d: round(INHERITED / 4 + (1 - INHERITED) * (d == "code"), 6) for d in BUILT_IN_DOMAINS}
    else:
        assert last == {"code": 1.0}


def test_the_alternates_of_a_conversation_are_those_of_every_turn_it_teaches() -> None:
    first, last = told(talk("continue", frozenset({"math"})))
    assert first[1] == last[1] == {"code": round(1 - ALTERNATES, 6), "math": ALTERNATES}


ROWS = st.builds(
    Row,
    text=st.text(min_size=1, max_size=9),
    domain=st.sampled_from(BUILT_IN_DOMAINS),
    alternates=st.frozensets(st.sampled_from(BUILT_IN_DOMAINS)),
    kind=st.sampled_from(["", *sorted(KINDS)]),
    topic=st.sampled_from(["", "t"]),
    language=st.sampled_from(["en", "ja"]),
    turns=st.lists(st.text(min_size=1, max_size=9), max_size=4).map(tuple),
)


@given(ROWS)
@settings(deadline=None)
def test_the_shares_of_an_example_sum_to_one_and_its_own_domain_has_most(row: Row) -> None:
    examples = list(examples_of(row))
    assert examples
    for example in examples:
        target = example.target(BUILT_IN_DOMAINS)
        assert sum(target) == pytest.approx(1)
        assert min(target) >= 0
        assert target[BUILT_IN_DOMAINS.index(row.domain)] == pytest.approx(max(target))
        assert (example.topic, example.language, example.held_out) == (row.topic, row.language, row.held_out)
        assert example.text in (row.text, *row.turns)


def test_a_target_has_the_shares_in_the_order_of_the_domains() -> None:
    example = Example("a", {"code": 0.7, "math": 0.3})
    assert example.target(["bio", "math", "code"]) == [0.0, 0.3, 0.7]


# What names a training set


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
        [Row("a", "code", kind="followup"), *SOME[1:]],
    ],
)
def test_the_hash_of_a_corpus_changes_with_texts_labels_alternates_and_kinds(other: list[Row]) -> None:
    assert corpus_hash(other) != corpus_hash(SOME)


def test_what_is_not_trained_on_does_not_change_the_hash() -> None:
    assert corpus_hash([Row("a", "code", language="de", style="fix", id="1")]) == corpus_hash([Row("a", "code")])


@given(st.lists(st.sampled_from([*BUILT_IN_DOMAINS, "zoo", "art", "Law"]), min_size=1))
@settings(deadline=None)
def test_the_labels_of_rows_come_in_the_order_that_an_experts_file_has(domains: list[str]) -> None:
    file = ExpertsFile.model_construct(version=1, experts={}, domains=dict.fromkeys(domains, Domain()))
    assert domains_of(Row("t", domain) for domain in [*domains, *BUILT_IN_DOMAINS]) == file.domain_names


def test_only_labels_that_rows_have_are_labels() -> None:
    assert domains_of([Row("t", "zoo"), Row("t", "math"), Row("t", "code"), Row("u", "zoo")]) == ("code", "math", "zoo")
    assert domains_of([]) == ()
