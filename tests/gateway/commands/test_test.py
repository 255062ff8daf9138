"""`moe-gateway test`, with the router that the package ships: nothing is trained, and no expert is there to be asked."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app

ROOT = Path(__file__).resolve().parents[3]
CONFIG = ROOT / "experts.yaml"
HEAD = "version: 1\ntests:\n"
RIGHT = (
    " - {name: a proof, prompt: Prove that the square root of 2 is irrational., expert: mathematician, tags: [smoke]}\n"
)
WRONG = " - {name: a wish, prompt: Prove that the square root of 2 is irrational., expert: coder, tags: [wish]}\n"


@pytest.fixture
def tests(tmp_path: Path) -> Path:
    path = tmp_path / "routes.test.yaml"
    path.write_text(HEAD + RIGHT + WRONG, "utf-8")
    return path


def run(state: Path, *arguments: str, config: Path = CONFIG) -> Result:
    command = ["test", *arguments, "--config", str(config), "--state", str(state / "state")]
    return CliRunner().invoke(app, command, env={"COLUMNS": "120"})


def test_the_shipped_tests_stand_beside_the_shipped_experts_and_pass(tmp_path: Path) -> None:
    result = run(tmp_path, "--json")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["ok"], told["failed"], told["file"]) == (0, True, 0, "routes.test.yaml")
    assert told["passed"] == len(told["tests"]) >= 10
    assert {test["decision"]["expert"] for test in told["tests"]} == {"coder", "mathematician", "biologist", "general"}


def test_one_that_fails_is_shown_with_why_and_is_status_1_and_build_servers_are_told(
    tests: Path, tmp_path: Path
) -> None:
    report = tmp_path / "routes.xml"
    result = run(tmp_path, str(tests), "--verbose", "--junit", str(report))
    assert result.exit_code == 1
    for said in (
        "ok  mathematician  0.9", "a proof",
        "FAILED routes.test.yaml:4  a wish", "Prove that the square root of 2", "went to mathematician, not to coder",
        "domains  math 0.9", "quality  mathematician 0.8", "1 passed, 1 failed in ",
    ):  # fmt: skip
        assert said in result.output
    suite = ElementTree.parse(report).getroot().find("testsuite")  # noqa: S314 - written just now
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")


def test_of_those_with_a_tag_the_json_says_what_did_not_hold_and_the_whole_decision(
    tests: Path, tmp_path: Path
) -> None:
    result = run(tmp_path, str(tests), "--json", "--tags", " wish ,")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["ok"], told["passed"], told["failed"]) == (1, False, 0, 1)
    (test,) = told["tests"]
    assert (test["name"], test["passed"], test["line"], test["tags"]) == ("a wish", False, 4, ["wish"])
    assert test["wrong"] == ["went to mathematician, not to coder"]
    assert [expert["id"] for expert in test["decision"]["experts"]] == [
        "coder", "mathematician", "biologist", "general",
    ]  # fmt: skip


def test_a_tag_that_no_test_has_is_no_way_to_pass(tests: Path, tmp_path: Path) -> None:
    unknown = run(tmp_path, str(tests), "--tags", "smoke,wihs")
    assert unknown.exit_code == 2
    assert "no test has the tag 'wihs'; did you mean 'wish'?" in unknown.output


def test_a_file_that_is_wrong_is_status_1_with_every_problem(tests: Path, tmp_path: Path) -> None:
    tests.write_text(HEAD + RIGHT + " - {prompt: a, expert: codr}\n - {prompt: b, domain: maths}\n", "utf-8")
    result = run(tmp_path, str(tests))
    assert result.exit_code == 1
    assert [line.rstrip() for line in result.stderr.splitlines()] == [
        "routes.test.yaml:4:24: error: tests.1.expert: no expert 'codr'; did you mean 'coder'?",
        "  4 │  - {prompt: a, expert: codr}",
        "    │                        ^^^^",
        "",
        "routes.test.yaml:5:24: error: tests.2.domain: no domain 'maths'; did you mean 'math'?",
        "  5 │  - {prompt: b, domain: maths}",
        "    │                        ^^^^^",
        "",
    ]
    told = json.loads(run(tmp_path, str(tests), "--json").stdout)
    assert (told["ok"], [problem["line"] for problem in told["problems"]]) == (False, [4, 5])


def test_no_tests_at_all_are_status_1_and_not_as_if_all_held(tmp_path: Path) -> None:
    config = tmp_path / "experts.yaml"
    config.write_bytes(CONFIG.read_bytes())
    result = run(tmp_path, config=config)
    assert result.exit_code == 1
    assert "there is no routes.test.yaml beside" in result.output
