from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml.nodes import ScalarNode

from router.errors import ConfigError, Problem
from router.yamlfile import MAX_DEPTH, MAX_TOKENS, YamlFile

TEXT = """\
first: 1
outer:
  inner: {deep: [10, 20]}
  list:
    - name: a
    - name: b
"""

PRINTABLE = st.text(st.characters(categories=("L", "M", "N", "P", "S", "Zs")), max_size=12)
KEYS = PRINTABLE.filter(lambda key: key != "<<")  # has a test of its own
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | PRINTABLE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


def parsed(text: str) -> YamlFile:
    return YamlFile.parse(text, "some.yaml")


def refusal(text: str) -> Problem:
    with pytest.raises(ConfigError) as caught:
        parsed(text)
    (problem,) = caught.value.problems
    return problem


def place(file: YamlFile, *path: str | int, at_key: bool = False) -> tuple[int, int]:
    problem = file.problem(path, "wrong", at_key=at_key)
    return problem.line, problem.column


@given(PLAIN)
@settings(deadline=None, max_examples=150)
def test_what_was_written_is_what_is_read(value: object) -> None:
    assert parsed(json.dumps(value, ensure_ascii=False)).data == value


def test_a_problem_stands_at_its_value() -> None:
    file = parsed(TEXT)
    assert place(file, "first") == (1, 8)
    assert place(file, "outer", "inner", "deep", 1) == (3, 22)
    assert place(file, "outer", "list", 1, "name") == (6, 13)


def test_a_problem_of_a_whole_section_stands_at_the_line_of_its_key() -> None:
    file = parsed(TEXT)
    assert place(file, "outer") == (2, 1)
    assert place(file, "outer", "list") == (4, 3)


def test_a_problem_of_an_item_that_is_a_section_stands_where_it_begins() -> None:
    assert place(parsed(TEXT), "outer", "list", 1) == (6, 7)


def test_a_problem_may_stand_at_the_key_instead_of_the_value() -> None:
    file = parsed(TEXT)
    assert place(file, "first", at_key=True) == (1, 1)
    assert place(file, "outer", "list", 0, "name", at_key=True) == (5, 7)


def test_a_problem_of_what_is_not_there_stands_at_the_nearest_parent() -> None:
    file = parsed(TEXT)
    assert place(file, "outer", "list", 7) == (4, 3)
    assert place(file, "outer", "absent", "deeper") == (2, 1)
    assert place(file, "absent") == (1, 1)
    assert place(parsed(""), "absent") == (1, 1)


def test_a_problem_carries_the_file_the_whole_key_and_the_message() -> None:
    problem = parsed(TEXT).problem(("outer", "list", 1, "name"), "is not a name")
    assert str(problem) == "some.yaml:6:13: outer.list.1.name: is not a name"


def test_a_problem_of_the_whole_file_names_no_key() -> None:
    assert str(parsed(TEXT).problem((), "is empty")) == "some.yaml:1:1: is empty"


def test_keys_that_stand_twice_are_found_at_any_depth_with_both_lines() -> None:
    text = "a: 1\nb:\n  - x: 1\n    y: 2\n    x: 3\na: 2\n"
    found = [(p.line, p.column, p.key, p.message) for p in parsed(text).duplicates()]
    assert sorted(found) == [
        (5, 5, "b.0.x", "stands twice; the first is on line 3"),
        (6, 1, "a", "stands twice; the first is on line 1"),
    ]


def test_a_key_that_stands_three_times_is_reported_twice() -> None:
    assert [p.line for p in parsed("a: 1\na: 2\na: 3\n").duplicates()] == [2, 3]


def test_the_same_key_in_two_sections_is_no_duplicate() -> None:
    assert parsed("a: {x: 1}\nb: {x: 1}\nx: 1\n").duplicates() == []


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=8))
@settings(deadline=None, max_examples=40)
def test_every_repetition_of_a_key_is_reported_on_its_own_line(keys: list[str]) -> None:
    repeated = [i + 1 for i, key in enumerate(keys) if key in keys[:i]]
    assert [p.line for p in parsed("".join(f"{key}: 1\n" for key in keys)).duplicates()] == repeated


def test_text_that_is_not_yaml_is_refused_at_its_line() -> None:
    problem = refusal("first: 1\nsecond: [1, 2\nthird: 3\n")
    assert (problem.file, problem.line) == ("some.yaml", 3)
    assert problem.message.startswith("not valid YAML: ")


def test_a_tabulator_is_refused_at_its_place() -> None:
    problem = refusal("first:\n\tsecond: 1\n")
    assert str(problem) == "some.yaml:2:1: not valid YAML: a tab stands here; indent with spaces"


def test_a_second_document_is_refused() -> None:
    problem = refusal("a: 1\n---\nb: 2\n")
    assert (problem.line, problem.message) == (
        2,
        "not valid YAML: another document begins here; a file is one document, so take the line --- out",
    )


@pytest.mark.parametrize("text", ["a: !!python/object/apply:os.getcwd []", "a: !unheard-of b"])
def test_a_tag_that_would_build_an_object_is_refused(text: str) -> None:
    assert refusal(text).line == 1


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("*hunter2", "an alias stands here"),
        ("!hunter2", "a tag stands here"),
        ("!hunter2 [x]", "a tag stands here"),
        ("%hunter2", "found character '%'"),
        ("@hunter2", "found character '@'"),
        ('"hunter2\\q"', "found unknown escape character 'q'"),
        ("[hunter2", "expected ',' or ']', but got '<stream end>'"),
        ("'hunter2", "found unexpected end of stream"),
        ("hunter2: hunter2", "mapping values are not allowed here"),
    ],
)
def test_a_text_that_is_not_yaml_is_not_repeated(value: str, says: str) -> None:
    problem = refusal(f"api_key: {value}\n")
    assert "hunter2" not in str(problem)
    assert says in problem.message


@pytest.mark.parametrize("text", ["a: \x00", "a: '\ud800'", "a: !!int 0x"])
def test_what_yaml_cannot_hold_is_refused(text: str) -> None:
    assert refusal(text).message.startswith("not valid YAML: ")


@pytest.mark.parametrize("text", ["a: !!bool maybe", "a: !!int ''", "a: !!float ''"])
def test_a_tag_that_its_value_contradicts_is_refused(text: str) -> None:
    assert refusal(text).message.startswith("not valid YAML: ")


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}"])
def test_a_section_that_contains_itself_is_refused(text: str) -> None:
    assert refusal(text).line == 1


@pytest.mark.parametrize("text", ["[" * 500, "{" * 500, "- " * 500, "a: " + "[" * 500 + "]" * 500])
def test_sections_nested_without_end_are_refused(text: str) -> None:
    assert refusal(text).message.startswith("not valid YAML: ")


def test_sections_nested_deeper_than_any_file_needs_are_refused() -> None:
    assert parsed("a: " + "[" * 20 + "]" * 20).data
    assert refusal("a: " + "[" * 60 + "]" * 60).message.startswith("not valid YAML: ")


def test_a_file_that_grows_without_end_through_aliases_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 6)]
    assert refusal("\n".join(lines)).message.startswith("not valid YAML: ")


# Each would take minutes or hours, were it read to its end or searched in a time that grows with the square of its length.
@pytest.mark.parametrize(
    ("text", "says", "place"),
    [
        ("[" * 200_000, "nested too deeply", (1, MAX_DEPTH + 2)),
        ("{a: " * 100_000, "nested too deeply", (1, (MAX_DEPTH + 1) * 4 - 2)),
        ("#\n" * MAX_TOKENS + "#", f"more than {MAX_TOKENS:,} words and signs", (MAX_TOKENS + 1, 1)),
    ],
    ids=["sequences", "mappings", "comments"],
)
def test_a_text_that_would_take_long_is_refused_where_it_would_begin_to(
    text: str, says: str, place: tuple[int, int]
) -> None:
    problem = refusal(text)
    assert (problem.message, problem.line, problem.column) == (f"not valid YAML: {says}", *place)


@pytest.mark.parametrize(
    "text", ["${A:-" * 30_000, "x" * 200_000, "'" + "x" * 200_000 + "'"], ids=["open", "plain", "quoted"]
)
def test_a_huge_text_is_a_text_like_any_other(text: str) -> None:
    assert parsed(f"a: {text}").data == {"a": text.strip("'")}


def test_an_alias_stands_for_what_it_names() -> None:
    assert parsed("a: &x {b: [1, 2]}\nc: *x\n").data == {"a": {"b": [1, 2]}, "c": {"b": [1, 2]}}


@pytest.mark.parametrize(
    ("merge", "data"),
    [
        ("{<<: *one, b: 9}", {"a": 1, "b": 9}),
        ("{b: 9, <<: *one}", {"a": 1, "b": 9}),
        ("{<<: [*one, *two]}", {"a": 1, "b": 2, "c": 4}),
        ("{<<: [*two, *one]}", {"a": 1, "b": 3, "c": 4}),
    ],
)
def test_what_is_merged_into_a_section_yields_to_what_stands_there(merge: str, data: object) -> None:
    assert parsed(f"one: &one {{a: 1, b: 2}}\ntwo: &two {{b: 3, c: 4}}\nboth: {merge}\n").data["both"] == data


def test_a_quoted_sign_for_merging_is_a_key_like_any_other() -> None:
    assert parsed("'<<': 1").data == {"<<": 1}


@pytest.mark.parametrize("text", ["a: {<<: 1}", "a: {<<: [1]}", "? [a]\n: b", "? {a: b}\n: c"])
def test_what_can_be_no_key_and_what_cannot_be_merged_is_refused_at_its_line(text: str) -> None:
    problem = refusal(f"first: 1\n{text}\n")
    assert problem.line == 2
    assert problem.message.startswith("not valid YAML: ")


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("key: ${NAME}", {"key": "${NAME}"}),
        ("{key: ${NAME}}", {"key": "${NAME}"}),
        ("[${NAME}, 1]", ["${NAME}", 1]),
        ('key: "${NAME}"', {"key": "${NAME}"}),
        ("{outer: {key: ${NAME}, other: 1}}", {"outer": {"key": "${NAME}", "other": 1}}),
        ("key: from ${A} to ${B_2}", {"key": "from ${A} to ${B_2}"}),
        ("${NAME}: 1", {"${NAME}": 1}),
        ("{a: ${NAME:-x, [y]: #z}, b: 1}", {"a": "${NAME:-x, [y]: #z}", "b": 1}),
        ("a: ${NAME:-x: y} # more", {"a": "${NAME:-x: y}"}),
        ('{a: "${NAME:-it\\"s, so}", b: $${NAME}}', {"a": '${NAME:-it"s, so}', "b": "$${NAME}"}),
        ("a: ${NAME:-it's}", {"a": "${NAME:-it's}"}),
    ],
)
def test_a_reference_may_stand_bare_wherever_a_value_may(text: str, data: object) -> None:
    assert parsed(text).data == data


def test_a_reference_moves_no_column() -> None:
    assert place(parsed("{key: ${NAME}, other: 1}"), "other") == (1, 23)
    assert place(parsed("{key: ${NAME:-a, b}, other: 1}"), "other") == (1, 29)


def test_a_node_has_the_text_that_the_file_has() -> None:
    file = parsed("{key: ${NAME:-a, b}}")
    node = file.node(("key",))
    assert isinstance(node, ScalarNode)
    assert file.text(node) == "${NAME:-a, b}"
    assert str(refusal("a: b: ${NAME:-c, d}\n").message).isascii()


@pytest.mark.parametrize("text", ["\ue000", "\ue001", "\ue006${A:-,}", "$\ue000A\ue001", "$\ue000"])
def test_characters_of_the_private_use_area_stay_as_they_are(text: str) -> None:
    assert parsed(json.dumps({"key": text}, ensure_ascii=False)).data == {"key": text}


@pytest.mark.parametrize(("text", "key"), [("null: 1\ntrue: 2\n", "true"), ("a: 1\n0x10: 2\n", "0x10")])
def test_a_key_is_the_text_that_stands_there_and_has_its_line(text: str, key: str) -> None:
    assert key in parsed(text).data
    assert place(parsed(text), key, at_key=True) == (2, 1)
