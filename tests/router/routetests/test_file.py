"""routes.test.yaml: what may stand in it, and what is said of what may not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.errors import ConfigError
from router.routetests.file import MAX_BYTES, MAX_TESTS, beside, parse_route_tests, read_route_tests
from tests.fakes.memory import experts_file

EXPERTS = experts_file({"coder": {"domains": {"code": 0.9}}, "general": {}})
HEAD = "version: 1\ntests:\n"


def refused(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_route_tests(text)
    return [str(problem).removeprefix("routes.test.yaml:") for problem in caught.value.problems]


def test_a_test_says_a_prompt_or_a_conversation_and_where_it_has_to_go() -> None:
    tests = parse_route_tests(
        HEAD + "  - {prompt: How do I sort?, expert: coder}\n"
        "  - name: carefully\n"
        "    prompt: Is it true?\n"
        "    expert: [coder, general]\n"
        "    domain: [code]\n"
        "    not: bio\n"
        "    confidence: 1\n"
        "    policy: cheap\n"
        "    tags: [slow, smoke]\n"
        "  - messages: [{role: user, content: Sort it.}, {role: assistant, content: Done.}, {role: user, content: Again!}]\n"
        "    not: [general]\n"
        "    policy: auto:best\n"
        "    tags: smoke\n"
    )
    first, second, third = tests.tests
    assert (first.name, first.line, first.query.text, first.query.requested_model) == (
        "How do I sort?", 3, "How do I sort?", "auto"
    )  # fmt: skip
    assert (first.experts, first.domains, first.forbidden, first.confidence, first.tags) == (
        ("coder",), (), (), None, ()
    )  # fmt: skip
    assert (second.name, second.line, second.query.requested_model) == ("carefully", 4, "auto:cheap")
    assert (second.experts, second.domains, second.forbidden, second.confidence) == (
        ("coder", "general"), ("code",), ("bio",), 1.0
    )  # fmt: skip
    assert (third.name, third.query.earlier, third.query.text) == ("Again! (auto:best)", ("Sort it.",), "Again!")
    assert tests.tags == ["slow", "smoke"]
    assert [test.line for test in tests.tagged(["smoke"]).tests] == [4, 12]
    assert [test.line for test in tests.tagged(["slow", "other"]).tests] == [4]
    tests.check(EXPERTS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "1:1: expected version: 1 and tests:"),
        ("- a", "1:1: expected version: 1 and tests:"),
        ("tests: [{prompt: a, expert: b}]", "1:1: version: is missing"),
        ("version: 2\ntests: [{prompt: a, expert: b}]", "1:10: version: input should be 1"),
        ("version: 1", "1:1: tests: is missing"),
        ("version: 1\ntests: []", "2:1: tests: list should have at least 1 item after validation, not 0"),
        ("version: 1\ntests: [{prompt: a, expert: b}]\ntest: 1", "3:1: test: unknown key; did you mean 'tests'?"),
        (HEAD + " - a", "3:4: tests.0: expected the keys of a test, such as prompt: and expert:"),
        (HEAD + " - {promt: a, prompt: a, expert: b}", "3:5: tests.0.promt: unknown key; did you mean 'prompt'?"),
        (HEAD + " - {prompt: a, prompt: b, expert: b}", "3:16: tests.0.prompt: stands twice; the first is on line 3"),
        (HEAD + " - {prompt: ' ', expert: b}", "3:13: tests.0.prompt: the prompt is empty"),
        (HEAD + " - {prompt: 5, expert: b}", "3:13: tests.0.prompt: input should be a valid string"),
        (HEAD + " - {expert: b}", "3:4: tests.0: give a prompt, or the messages of a conversation"),
        (
            HEAD + " - {prompt: a, expert: b, messages: [{role: user, content: a}]}",
            "3:4: tests.0: give a prompt, or the messages of a conversation",
        ),
        (HEAD + " - {expert: b, messages: []}", "3:16: tests.0.messages: the user says nothing in it"),
        (
            HEAD + " - {expert: b, messages: [{role: system, content: a}]}",
            "3:16: tests.0.messages: the user says nothing in it",
        ),
        (
            HEAD + " - {expert: b, messages: [{role: user, content: 5}]}",
            "3:16: tests.0.messages: expected `str | array | null`, got `int` - at `$[0].content`",
        ),
        (
            HEAD + " - {prompt: a}",
            "3:4: tests.0: says nothing that has to hold; give one of expert, domain, not, confidence",
        ),
        (HEAD + " - {prompt: a, confidence: 0}", "3:4: tests.0: says nothing that has to hold"),
        (HEAD + " - {prompt: a, expert: []}", "3:16: tests.0.expert: value should have at least 1 item"),
        (HEAD + " - {prompt: a, expert: b, not: [c, b]}", "3:4: tests.0: 'b' is wanted, and under not"),
        (HEAD + " - {prompt: a, domain: b, not: b}", "3:4: tests.0: 'b' is wanted, and under not"),
        (HEAD + " - {prompt: a, confidence: 90%}", "3:28: tests.0.confidence: input should be a valid number"),
        (
            HEAD + " - {prompt: a, confidence: 1.1}",
            "3:28: tests.0.confidence: input should be less than or equal to 1",
        ),
        (
            HEAD + " - {prompt: a, expert: b, policy: auto:chep}",
            "3:35: tests.0.policy: no policy 'auto:chep'; did you mean 'auto:cheap'?",
        ),
        (HEAD + " - {prompt: a, expert: b, tags: [a b]}", "3:34: tests.0.tags.0: string should match pattern"),
        (
            HEAD + " - {name: a, prompt: a, expert: b}\n - {name: a, prompt: b, expert: b}",
            "4:11: tests.1.name: is the name of a test above already",
        ),
        (HEAD + "\t- a", "3:1: not valid YAML: a tab stands here"),
    ],
)
def test_what_is_wrong_is_said_with_its_place_and_what_was_meant(text: str, said: str) -> None:
    assert any(problem.startswith(said) for problem in refused(text)), refused(text)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    assert [p.split(" ")[0] for p in refused(HEAD + " - {promt: a}\n - {prompt: '', expert: b}\n - 7")] == [
        "3:5:", "4:13:", "5:4:",
    ]  # fmt: skip


def test_names_that_the_experts_file_does_not_have_are_problems_at_their_place() -> None:
    tests = parse_route_tests(
        HEAD + " - {prompt: a, expert: codr}\n"
        " - {prompt: b, expert: [coder, genera], domain: low, not: [general, bio, lega]}\n"
    )
    with pytest.raises(ConfigError) as caught:
        tests.check(EXPERTS)
    assert str(caught.value).splitlines() == [
        "routes.test.yaml:3:24: tests.0.expert: no expert 'codr'; did you mean 'coder'?",
        "routes.test.yaml:4:32: tests.1.expert.1: no expert 'genera'; did you mean 'general'?",
        "routes.test.yaml:4:49: tests.1.domain: no domain 'low'; known are code, math, bio, general",
        "routes.test.yaml:4:74: tests.1.not.2: no expert or domain 'lega'; known are coder, general, code, math, bio",
    ]


def test_a_test_without_a_name_is_called_by_its_prompt() -> None:
    (test,) = parse_route_tests(HEAD + f" - {{prompt: {'long ' * 40}, expert: a}}").tests
    assert test.name == f"{('long ' * 40)[:59]}…"


def test_at_most_so_many_tests_are_taken() -> None:
    one = " - {prompt: a, expert: b}\n"
    assert len(parse_route_tests(HEAD + one * MAX_TESTS).tests) == MAX_TESTS
    assert f"at most {MAX_TESTS} items" in refused(HEAD + one * (MAX_TESTS + 1))[0]


def test_the_file_stands_beside_the_experts(tmp_path: Path) -> None:
    assert beside(tmp_path / "experts.yaml") is None
    path = tmp_path / "routes.test.yaml"
    path.symlink_to("nowhere")  # not as if there were none: what was tested would be tested no more
    assert beside(tmp_path / "experts.yaml") == path
    with pytest.raises(ConfigError, match=r"routes.test.yaml:1:1: is not there"):
        read_route_tests(path)


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    path = tmp_path / "routes.test.yaml"
    path.mkdir()
    with pytest.raises(ConfigError, match="is a folder"):
        read_route_tests(path)
    path.rmdir()
    path.write_text(HEAD + " - {prompt: Grüße, expert: b}", "utf-8")
    assert read_route_tests(path).tests[0].query.text == "Grüße"
    path.write_bytes((HEAD + " - {prompt: Grüße, expert: b}").encode("latin-1"))
    with pytest.raises(ConfigError, match=r"^routes.test.yaml:3:15: .*UTF-8"):
        read_route_tests(path)
    path.write_text(HEAD + " - {prompt: a, expert: b}\n" + "#" * MAX_BYTES, "utf-8")
    with pytest.raises(ConfigError, match="larger than 512 KiB"):
        read_route_tests(path)


def test_references_to_the_environment_are_the_prompts_own_words() -> None:
    (test,) = parse_route_tests(HEAD + " - {prompt: What does ${HOME:-x} mean in bash?, expert: a}").tests
    assert test.query.text == "What does ${HOME:-x} mean in bash?"


VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5), lambda inner: st.lists(inner, max_size=2)
)


@settings(max_examples=60)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(
                ["name", "prompt", "messages", "expert", "domain", "not", "confidence", "policy", "tags", "x"]
            ),
            VALUE,
            max_size=4,
        ),
        max_size=3,
    )
)
def test_whatever_stands_there_is_read_or_refused(tests: list[dict[str, object]]) -> None:
    try:
        parse_route_tests(json.dumps({"version": 1, "tests": tests}))
    except ConfigError:
        return
