"""docs/lessons.md names a test for each of its lines, and each of them exists."""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from router.artifact import PACKAGED, load_artifact
from router.decision import Decision, Query
from router.experts import parse_experts
from router.routing import Router
from tests.integration.failures.table import rows

ROOT = Path(__file__).parents[1]
COUNT = 27
LINES = [
    [cell.strip() for cell in line.strip().strip("|").split("|")]
    for line in (ROOT / "docs" / "lessons.md").read_text("utf-8").splitlines()
    if re.match(r"\| \d+ \|", line)
]
PROMPTS = {
    "code": [
        "pyhton list comprehnsion syntx",
        "my docker contaner wont strat",
        "git rebse confict",
        "sql jion not wrking",
        "npm isntall fials",
        "js promis never resovles",
    ],
    "math": [
        "integrl of x^2",
        "solve 3x+5=20 pls",
        "whats the derivitive of sin",
        "prime factrs of 84",
        "quadratc formula",
        "probabilty of two sixs",
    ],
    "bio": [
        "wat do mitochondira do",
        "dna replicaton steps",
        "how do vacines work on virusses",
        "photosynthsis equation",
        "whats a ribosme",
        "crispr gene editng hwo",
    ],
    "general": [
        "hey",
        "thanks!",
        "tel me a joke",
        "wat shud i cook tonite",
        "birthday mesage for my mum",
        "lol ok",
    ],
}


@cache
def names_in(path: str) -> frozenset[str]:
    """The names of a file's test functions."""
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in functions if node.name.startswith("test_"))


def test_no_line_is_missing() -> None:
    assert [int(number) for number, _, _ in LINES] == list(range(1, COUNT + 1))
    assert all(said.endswith(".") for _, said, _ in LINES)


@pytest.mark.parametrize("held_by", [line[2] for line in LINES], ids=[line[0] for line in LINES])
def test_each_test_that_a_line_names_exists(held_by: str) -> None:
    names = re.findall(r"`([^`]+)`", held_by)
    assert names
    assert re.sub(r"`[^`]+`", "", held_by).strip() == ""
    played = {row.id for row in rows()}
    for name in names:
        if name.startswith("["):
            assert name.strip("[]") in played
        else:
            path, *_, function = name.split("::")
            assert function in names_in(path), name


@pytest.mark.parametrize("version", ["1.82.7", "1.82.8", "1.107.0", "1.107.3", "1.108.0", "2.0.0"])
def test_bad_releases_of_litellm_cannot_be_installed(version: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project.get("optional-dependencies", {})
    named = [Requirement(line) for lines in (project["dependencies"], *extras.values()) for line in lines]
    wanted = [requirement for requirement in named if requirement.name == "litellm"]
    assert wanted
    assert not any(requirement.specifier.contains(version) for requirement in wanted)
    pinned = re.findall(r"^litellm==(\S+)$", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    assert len(pinned) == 1
    assert all(requirement.specifier.contains(pinned[0]) for requirement in wanted)


def test_short_and_misspelled_prompts_keep_their_domain() -> None:
    router = Router(parse_experts((ROOT / "experts.yaml").read_text("utf-8")), load_artifact(PACKAGED))
    asked = [(text, domain) for domain, texts in PROMPTS.items() for text in texts]
    decisions = router.decide_many([Query(text) for text, _ in asked])
    told = [decision.scores.domain for decision in decisions if isinstance(decision, Decision) and decision.scores]
    right = sum(got == domain for got, (_, domain) in zip(told, asked, strict=True))
    assert right >= 20, list(zip(told, asked, strict=True))
