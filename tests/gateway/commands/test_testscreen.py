"""What `moe-gateway test` shows: nothing of a prompt reaches the terminal but what can be seen."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console, Group

from gateway.commands.testscreen import rendered
from router.decision import Candidate, Query, Rules
from router.routetests import Result, RouteTest
from tests.fakes.memory import decision

CANDIDATES = (
    Candidate("coder", 0.25, 1.0),
    Candidate("seer", None, None, "cannot do vision"),
    Candidate("general", 0.5, None),
)
RULES = Rules("auto:cheap", 0.1, 0.55, "general", {})
DECISION = replace(decision("general", domains={"code": 0.2, "general": 0.8}), candidates=CANDIDATES, rules=RULES)


def result(name: str, query: Query, *wrong: str) -> Result:
    return Result(RouteTest(name, 7, 0, query), wrong, DECISION)


def shown(*results: Result, verbose: bool = False, width: int = 100) -> str:
    console = Console(width=width, record=True, file=io.StringIO(), force_terminal=True, color_system=None)
    console.print(Group(*rendered("routes.test.yaml", results, 0.25, verbose)), highlight=False)
    return "\n".join(line.rstrip() for line in console.export_text().splitlines())


def test_a_failure_says_what_was_wanted_what_came_and_from_which_figures() -> None:
    picture = shown(
        result("sorting", Query("and the second?", earlier=("Sort it.",)), "went to general, not to coder", "is low"),
        result("fine", Query("x")),
    )
    assert picture.splitlines() == [
        "FAILED routes.test.yaml:7  sorting",
        "  prompt   and the second? (turn 2 of the conversation)",
        "  wrong    went to general, not to coder",
        "           is low",
        "  why      general, reason best, policy auto:cheap, transformer stage",
        "  domains  general 0.800, code 0.200",
        "  quality  general 0.500, coder 0.250",
        "           seer refused: cannot do vision",
        "",
        "1 passed, 1 failed in 0.25 s",
    ]


def test_the_floor_is_told_where_it_decided() -> None:
    low = replace(result("a", Query("x"), "went to general"), decision=replace(DECISION, reason="low_confidence"))
    assert "general, reason low_confidence, below the floor of 0.55, transformer stage" in shown(low)


def test_what_passed_is_a_line_each_where_it_is_asked_for() -> None:
    assert shown(result("fine", Query("x"))).splitlines() == ["1 passed in 0.25 s"]
    assert shown(result("fine", Query("x")), verbose=True).splitlines() == [
        "ok  general  0.800  fine",
        "",
        "1 passed in 0.25 s",
    ]


def test_names_and_prompts_are_text_and_obeyed_by_no_terminal() -> None:
    evil = "[red]\x1b[31m\x07\u202e[/]"
    picture = shown(result(evil, Query(evil), evil), result(evil, Query("x")), verbose=True, width=60)
    assert picture.count(r"[red]\x1b[31m\x07\u202e[/]") == 4
    assert "\x1b" not in picture


def test_an_error_in_place_of_a_decision_is_shown() -> None:
    picture = shown(Result(RouteTest("a", 3, 0, Query("x")), ("No expert here can do this",)))
    assert "  wrong   No expert here can do this" in picture
    assert "domains" not in picture
