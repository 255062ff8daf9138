from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.authoring.authored import (
    DOMAIN_OF_TOPIC,
    MEASURED_FIELDS,
    TOPICS,
    AuthoredRow,
    Finding,
    complaints_of,
    read_authored,
    short_name,
)
from router.dataset import read_rows
from router.experts import BUILT_IN_DOMAINS

PROMPT = {"prompt": "Why does my loop stop?", "domain": "code", "lang": "en", "style": "fix", "topic": "python"}
SAID = [{"role": r, "content": c} for r, c in (("user", "Sort this"), ("assistant", "Done"), ("user", "faster"))]
TALK = {
    "messages": SAID,
    "domain": "code",
    "lang": "en",
    "style": "conversation",
    "topic": "algorithms",
    "kind": "followup",
}


def file(tmp_path: Path, *rows: object) -> Path:
    path = tmp_path / "corpus" / "mine.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), "utf-8")
    return path


def wrong(row: dict[str, Any], **changes: Any) -> list[str]:
    return list(complaints_of({**row, **changes}))


def test_the_topics_are_those_of_the_built_in_domains_and_each_has_one() -> None:
    assert tuple(TOPICS) == BUILT_IN_DOMAINS
    assert len(DOMAIN_OF_TOPIC) == sum(map(len, TOPICS.values()))


@pytest.mark.parametrize(
    "row", [PROMPT, TALK, PROMPT | {"alt": ["math"], "why": "half and half"}], ids=["prompt", "talk", "alt"]
)
def test_nothing_is_wrong_with_a_right_row(tmp_path: Path, row: dict[str, Any]) -> None:
    (read,), findings = read_authored(file(tmp_path, row))
    assert findings == []
    assert (read.place, read.raw) == ("corpus/mine.jsonl:1", row)


def test_an_old_row_needs_no_topic(tmp_path: Path) -> None:
    row = {"prompt": "segfault", "domain": "code", "lang": "en", "style": "word"}
    assert read_authored(file(tmp_path, row))[1] == []


def test_every_row_has_a_language_and_a_style() -> None:
    assert wrong({"prompt": "abc", "domain": "code"}) == ["no lang", "no style"]


@pytest.mark.parametrize(
    ("changes", "by"),
    [
        ({"alt": ["math"], "topic": "physics"}, "rule of its topic"),
        ({"alt": ["bio"], "topic": "chemistry"}, "rule of its topic"),
        ({"alt": ["code"], "topic": "physics"}, "nothing"),
        ({"alt": ["math"], "topic": "finance"}, "nothing"),
        ({"alt": ["math"]}, "nothing"),
        ({"alt": ["math"], "topic": "finance", "why": "sums"}, "why"),
    ],
    ids=str,
)
def test_alternates_are_explained_by_the_row_or_by_the_rule_of_its_topic(changes: dict[str, Any], by: str) -> None:
    assert AuthoredRow("f", 1, {"prompt": "p", "domain": "general", **changes}).explained_by == by


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        (["math", "code"], None),
        (["code"], "turn_domains has 1 labels for 2 user turns"),
        (["code", "math"], "the last of turn_domains is not the domain"),
        (["cooking", "code"], "turn_domains is not a list of domains"),
        ("code", "turn_domains is not a list of domains"),
        ([{}, "code"], "turn_domains is not a list of domains"),
    ],
    ids=str,
)
def test_the_labels_of_turns_are_domains_one_for_each(labels: object, complaint: str | None) -> None:
    found = list(complaints_of({**TALK, "id": "1", "part": "p", "turn_domains": labels}, MEASURED_FIELDS))
    assert found == ([complaint] if complaint else [])


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"language": "en"}, "unknown field 'language'"),
        ({"id": "7"}, "unknown field 'id'"),
        ({"style": "rewrite"}, "unknown style 'rewrite'; did you mean 'write'?"),
        ({"style": 5}, "unknown style 5"),
        ({"style": ["fix"]}, "unknown style ['fix']"),
        ({"lang": "eng"}, "unknown lang 'eng'; did you mean 'en'?"),
        ({"topic": "economics"}, "unknown topic 'economics'"),
        ({"topic": None}, "unknown topic None"),
        ({"domain": "legal"}, "unknown domain 'legal'; there are code, math, bio, general"),
        ({"domain": ["code"]}, "unknown domain ['code']"),
        ({"alt": ["code"]}, "the alternate 'code' is the domain itself"),
        ({"alt": ["law"]}, "unknown alternate 'law'"),
        ({"alt": [{}]}, "unknown alternate {}"),
        ({"alt": ["math", "math"]}, "an alternate stands twice"),
        ({"alt": []}, "alt is empty"),
        ({"alt": "math"}, "alt is not a list"),
        ({"why": " "}, "why is empty"),
        ({"why": 5}, "why is empty"),
        ({"topic": "geometry"}, "topic geometry is of math, which is neither the domain nor an alternate"),
        ({"kind": "followup"}, "a conversation has a kind, and nothing else has"),
        ({"style": "conversation"}, "a conversation has the style conversation, and nothing else has"),
    ],
    ids=str,
)
def test_a_wrong_field_is_named(changes: dict[str, Any], complaint: str) -> None:
    assert any(said.startswith(complaint) for said in wrong(PROMPT, **changes)), wrong(PROMPT, **changes)


def test_a_row_without_a_domain_is_named_whatever_its_alternates() -> None:
    assert wrong({"prompt": "p", "alt": [None], "lang": "en", "style": "ask"}) == [
        "unknown domain None; there are code, math, bio, general", "unknown alternate None",
    ]  # fmt: skip


def test_a_topic_of_an_alternate_is_right() -> None:
    assert wrong(PROMPT, topic="geometry", alt=["math"]) == []


def test_a_conversation_has_a_kind_of_the_set() -> None:
    assert wrong({name: value for name, value in TALK.items() if name != "kind"}) != []
    assert wrong(TALK, kind="chatty") != []


def test_a_row_of_an_evaluation_set_has_fields_of_its_own(tmp_path: Path) -> None:
    measured = {**TALK, "style": "ask", "id": "own-1", "part": "hard"}
    assert read_authored(file(tmp_path, measured), MEASURED_FIELDS)[1] == []
    assert read_authored(file(tmp_path, measured))[1] != []


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("no json", "not JSON: "),
        ("[]", "not an object"),
        ("{}", "no prompt, and messages is not a list of messages"),
        ({"prompt": " \n"}, "prompt is empty"),
        ({"prompt": 5}, "prompt is not text"),
        ({"prompt": "p", "messages": SAID}, "prompt and messages; a row has one of them"),
        ({"messages": "p"}, "no prompt, and messages is not a list of messages"),
        ({"messages": []}, "no prompt, and messages is not a list of messages"),
        ({"messages": ["p"]}, "no prompt, and messages is not a list of messages"),
        ({"messages": [{"role": "bot", "content": "p"}, SAID[0]]}, "message 1: unknown role 'bot'"),
        ({"messages": [SAID[0], {"role": "assistant", "content": ""}, SAID[2]]}, "message 2: no text"),
        ({"messages": [SAID[1]]}, "the user says nothing"),
        ({"messages": SAID[:2]}, "the last message is from 'assistant', not from the user"),
        ({"messages": [SAID[0], {"role": "tool", "content": "5"}], "kind": "long"}, "the last message is from 'tool'"),
    ],
    ids=str,
)
def test_a_row_without_a_text_is_left_out_and_named(tmp_path: Path, line: object, complaint: str) -> None:
    rows, findings = read_authored(file(tmp_path, PROMPT, line, PROMPT))
    assert [row.line for row in rows] == [1, 3]
    assert {(finding.file, finding.line, finding.check) for finding in findings} == {("corpus/mine.jsonl", 2, "row")}
    assert any(finding.message.startswith(complaint) for finding in findings), findings


def test_a_tools_answer_may_come_last_where_the_kind_says_so(tmp_path: Path) -> None:
    row = TALK | {"messages": [*SAID, {"role": "tool", "content": "5 rows"}], "kind": "tool"}
    assert read_authored(file(tmp_path, row))[1] == []


@pytest.mark.parametrize(
    "text",
    [
        "Dear [insert name], hello",
        "lorem ipsum dolor",
        "What is a cell? (variation 3)",
        "As an AI language model I can",
        "Prompt 7: hi",
        "a\ufffdb",
    ],
)
def test_what_a_program_leaves_behind_is_found(tmp_path: Path, text: str) -> None:
    (row,), findings = read_authored(file(tmp_path, PROMPT | {"prompt": text}))
    assert [(finding.line, finding.check) for finding in findings] == [(1, "machine-made")]
    assert row.whole == text


@pytest.mark.parametrize(
    "text", ["{{ .Chart.Name }}", "int a[8] = {0};", "your [name] here", "fill the gap: ____", "prompt me 7: times"]
)
def test_what_people_write_is_not(tmp_path: Path, text: str) -> None:
    assert read_authored(file(tmp_path, PROMPT | {"prompt": text}))[1] == []


def test_a_conversations_texts_are_its_users_turns_and_all_that_is_said() -> None:
    row = AuthoredRow("f", 1, TALK)
    assert (row.turns, row.whole) == (("Sort this", "faster"), "Sort this\nDone\nfaster")
    assert AuthoredRow("f", 1, PROMPT).turns == (PROMPT["prompt"],)


def test_a_finding_reads_like_a_compilers() -> None:
    assert str(Finding("corpus/bio.jsonl", 7, "row", "wrong")) == "corpus/bio.jsonl:7: row: wrong"
    assert str(Finding("corpus", 0, "balance", "wrong")) == "corpus: balance: wrong"


def test_a_file_is_named_with_its_folder() -> None:
    assert short_name(Path("/a/b/c.jsonl")) == "b/c.jsonl"
    assert short_name(Path("c.jsonl")) == "c.jsonl"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
MESSAGES = st.lists(
    st.dictionaries(st.sampled_from(["role", "content"]), st.just("user") | VALUES, max_size=2), max_size=3
)
ROWS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("domain", "alt", "lang", "style", "topic", "kind", "why"), VALUES | st.just("code")),
        "prompt": VALUES,
        "messages": MESSAGES | VALUES,
    },
)


@given(ROWS)
@settings(deadline=None)
def test_what_is_found_right_can_be_trained_on(tmp_path_factory: pytest.TempPathFactory, raw: dict[str, Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_text(json.dumps(raw) + "\n", "utf-8")
    rows, findings = read_authored(path)
    assert rows or findings
    for row in rows:
        assert row.whole.strip()
    if not findings:
        assert len(list(read_rows(path))) == 1
