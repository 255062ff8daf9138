"""Routing tests put to a router: what holds, what does not, and what is said of it."""

from __future__ import annotations

import pytest

from router.errors import ExtensionError
from router.policy import POLICIES, Choice, State
from router.routetests import Result, parse_route_tests, run_route_tests
from router.routing import Router
from tests.fakes.memory import experts_file, router_of

HEAD = "version: 1\ntests:\n"
FILE = experts_file(
    {
        "coder": {"domains": {"code": 0.9}, "price": {"input": 2.0, "output": 2.0}},
        "cheap": {"domains": {"code": 0.85}, "price": {"input": 1.0, "output": 1.0}},
        "general": {"domains": {"general": 0.9}, "price": {"input": 1.0, "output": 1.0}},
    }
)


@pytest.fixture(scope="module")
def router() -> Router:
    return router_of(FILE)


def run(router: Router, *tests: str) -> list[Result]:
    return run_route_tests(parse_route_tests(HEAD + "".join(f" - {{{test}}}\n" for test in tests)), router)


@pytest.mark.parametrize(
    "expectation",
    [
        "expert: coder",
        "expert: [general, coder]",
        "domain: code",
        "domain: [bio, code]",
        "confidence: 0.99",
        "not: general",
        "not: [math, cheap]",
        "expert: cheap, policy: cheap",
        "expert: coder, domain: code, not: bio, confidence: 0.5, policy: auto:best",
    ],
)
def test_what_holds_passes(router: Router, expectation: str) -> None:
    (result,) = run(router, f"prompt: code, {expectation}")
    assert result.passed, result.why
    assert result.why == ""
    assert result.decision is not None


@pytest.mark.parametrize(
    ("expectation", "why"),
    [
        ("expert: general", "went to coder, not to general"),
        ("expert: [general, cheap]", "went to coder, not to general or cheap"),
        ("expert: coder, policy: cheap", "went to cheap, not to coder"),
        ("domain: [bio, math]", "was taken for code, not for bio or math"),
        ("not: coder", "went to coder, where it must not go"),
        ("not: [bio, code]", "was taken for code, which it must not be"),
        ("expert: coder, confidence: 1", "confidence is 1.000, below 1"),
        ("expert: general, domain: bio", "went to coder, not to general, was taken for code, not for bio"),
    ],
)
def test_what_does_not_hold_is_said_with_the_figures(router: Router, expectation: str, why: str) -> None:
    (result,) = run(router, f"prompt: code, {expectation}")
    assert not result.passed
    assert result.why.startswith(f"{why} (")
    assert "code 1.000, " in result.why


def test_the_confidence_may_be_just_what_is_asked_for(router: Router) -> None:
    (result,) = run(router, "prompt: code, confidence: 0.5")
    assert result.decision is not None
    assert result.decision.scores is not None
    exactly = result.decision.scores.confidence
    assert run(router, f"prompt: code, confidence: {exactly!r}")[0].passed


def test_a_whole_conversation_is_judged(router: Router) -> None:
    turns = "{role: user, content: code}, {role: assistant, content: general}, {role: user, content: go on}"
    (result,) = run(router, f"messages: [{turns}], expert: coder")
    assert result.passed, result.why


def test_each_test_has_its_result_in_the_order_of_the_file(router: Router) -> None:
    results = run(router, "name: a, prompt: code, expert: coder", "name: b, prompt: code, expert: general")
    assert [(result.name, result.passed) for result in results] == [("a", True), ("b", False)]


def test_one_that_names_what_is_no_longer_there_fails_and_the_others_do_not(router: Router) -> None:
    gone, there = run(router, "prompt: code, expert: [coder, lawyer]", "prompt: code, expert: coder")
    assert (gone.passed, there.passed) == (False, True)
    assert gone.why.startswith("no expert 'lawyer'; known are")


def test_what_no_expert_can_answer_fails_with_why(router: Router) -> None:
    picture = "[{role: user, content: [{type: text, text: code}, {type: image_url}]}]"
    unable, able = run(router, f"messages: {picture}, expert: coder", "prompt: code, expert: coder")
    assert (unable.passed, unable.decision, able.passed) == (False, None, True)
    assert "it needs vision" in unable.why


def test_a_router_that_was_changed_for_the_worse_is_found_out(router: Router) -> None:
    """What a reload's gate asks."""
    tests = parse_route_tests(HEAD + " - {name: code stays with the coder, prompt: code, expert: coder}\n")
    assert all(result.passed for result in run_route_tests(tests, router))
    worse = router_of(experts_file({"coder": {"domains": {"code": 0.3}}, "general": {"domains": {"code": 0.6}}}))
    (result,) = run_route_tests(tests, worse)
    assert (result.name, result.passed) == ("code stays with the coder", False)
    assert "went to general, not to coder" in result.why


def test_what_a_strangers_policy_says_of_the_prompt_is_not_repeated(router: Router) -> None:
    def quoting(state: State) -> Choice | None:
        raise ExtensionError("the policy auto:acme failed: it was asked code", "auto:acme") from KeyError("code")

    with POLICIES.lending("auto:acme", quoting):
        failed, fine = run(router, "prompt: code, policy: acme, expert: coder", "prompt: code, expert: coder")
    assert (failed.why, failed.decision, fine.passed) == ("the policy auto:acme failed: KeyError", None, True)
