"""Every alert has a page that says what to do, every page an alert; what the pages tell people to run or to ask for is there."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import typer.main

from gateway.cli import app
from tests.deploy.expressions import selectors
from tests.deploy.files import ROOT, Document
from tests.deploy.gateways import metrics, paths
from tests.deploy.prometheus_rules import alerts, recorded, recordings
from tests.deploy.vllms import series

RUNBOOKS = ROOT / "docs" / "runbooks"
INDEX = RUNBOOKS / "README.md"
PAGES = sorted(path for path in RUNBOOKS.glob("*.md") if path != INDEX)
PARTS = ["What it means", "Look at", "Do", "When it is over"]
QUERIES = re.compile(r"```promql\n(.*?)```", re.DOTALL)
ROW = re.compile(r"^\| \[(\w+)\]\((\w+)\.md\) \| (\w+) \| (.*) \| (\w+) \|$", re.MULTILINE)
PATH = re.compile(r"(?<![\w.])/(?:admin|v1|health|ready|metrics)[\w/{}]*")
COMPARISONS = {"==", "!=", ">", "<", ">=", "<="}
NEITHER = {0, 1, 3600}  # up or down, and seconds an hour


def text(path: Path) -> str:
    return path.read_text("utf-8")


def test_every_alert_has_a_page_and_every_page_an_alert() -> None:
    assert [path.stem for path in PAGES] == sorted(rule["alert"] for rule in alerts())


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_it_is_and_links_to_its_page(rule: Document) -> None:
    said, name = rule["annotations"], rule["alert"]
    assert said.keys() == {"summary", "description", "runbook_url"}
    assert said["runbook_url"] == (
        f"{{{{ with $externalLabels.runbooks }}}}{{{{ . }}}}{{{{ else }}}}docs/runbooks{{{{ end }}}}/{name}.md"
    )
    assert all(
        re.search(r"\| (humanize\w*|printf)", used) for used in re.findall(r"{{ \$value(.+?)}}", said["summary"])
    )
    assert rule["labels"] == {"severity": rule["labels"]["severity"]}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_has_its_parts(path: Path) -> None:
    assert text(path).startswith(f"# {path.stem}\n")
    assert re.findall(r"^#+ (.*)$", text(path), re.MULTILINE)[1:] == PARTS
    bodies = re.split(r"^## .*$", text(path), flags=re.MULTILINE)[1:]
    assert all(body.strip() for body in bodies)


def test_the_index_has_every_alert_as_it_is() -> None:
    rows = {name: (page, severity, fires, since) for name, page, severity, fires, since in ROW.findall(text(INDEX))}
    assert rows.keys() == {rule["alert"] for rule in alerts()}
    for rule in alerts():
        page, severity, fires, since = rows[rule["alert"]]
        assert (page, severity) == (rule["alert"], rule["labels"]["severity"])
        assert since == rule.get("for", "now"), rule["alert"]
        for threshold in thresholds(promql_parser.parse(rule["expr"])) - NEITHER:
            forms = {
                f"{threshold:g}",
                f"{threshold * 100:g} %",
                f"{threshold * 100:g} points",
                f"{threshold / 2**20:g} MiB",
            }
            assert any(re.search(rf"(?<![\d.]){re.escape(form)}(?![\d.]\d)", fires) for form in forms), (
                rule,
                threshold,
            )


def thresholds(node: Any) -> set[float]:
    """The numbers on the right of every comparison in an expression."""
    found: set[float] = set()
    if isinstance(node, promql_parser.BinaryExpr) and str(node.op) in COMPARISONS:
        found |= numbers(node.rhs)
    for child in ("lhs", "rhs", "expr", "args"):
        inner = getattr(node, child, None)
        for one in inner if isinstance(inner, list) else [inner]:
            found |= thresholds(one) if one is not None else set()
    return found


def numbers(node: Any) -> set[float]:
    if isinstance(node, promql_parser.NumberLiteral):
        return {node.val}
    if isinstance(node, promql_parser.BinaryExpr):
        return numbers(node.lhs) | numbers(node.rhs)
    return numbers(node.expr) if isinstance(node, promql_parser.ParenExpr) else set()


def test_the_index_tells_the_objectives_that_are_recorded() -> None:
    budgets = {
        rule["labels"]["slo"]: float(rule["expr"].removeprefix("vector(").removesuffix(")"))
        for rule in recordings()
        if rule["record"] == "moe:slo_error_budget:ratio"
    }
    told = {name: float(share) for name, share in re.findall(r"^\| `(\w+)` \| ([\d.]+) %", text(INDEX), re.MULTILINE)}
    assert {name: round(100 * (1 - budget), 6) for name, budget in budgets.items()} == told


def commands(page: str) -> list[str]:
    """Those of ours that it tells people to run."""
    inline = re.findall(r"`(moe-gateway [^`]+)`", page)
    blocks = re.findall(r"^(moe-gateway .*)$", page, re.MULTILINE)
    return inline + blocks


def test_the_pages_say_what_to_run() -> None:
    assert sum(len(commands(text(path))) for path in PAGES) > 30


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_what_a_page_says_is_there(path: Path) -> None:
    page = text(path)
    for command in commands(page):
        assert_parses(shlex.split(command)[1:])
    for name in PATH.findall(page.replace("$GATEWAY", "")):
        assert name in paths(), name
    for link in re.findall(r"\]\(([^)]+)\)", page):
        assert (RUNBOOKS / link).is_file(), link
    for file in re.findall(r"\b(?:docs|deploy)/[\w./-]+\w", page):
        assert (ROOT / file).exists(), file
    counted = {re.sub(r"_(bucket|count|sum)$", "", name) for name in metrics()} | metrics().keys() | recorded().keys()
    assert set(re.findall(r"\bmoe[_:][a-z][\w:]*", page)) <= counted | {"moe_gateway"}


@cache
def gateway_command() -> Any:
    return typer.main.get_command(app)


def assert_parses(words: list[str]) -> None:
    """As the command line takes it: every command, option and number of arguments. Raises what click raises."""
    command = gateway_command()
    while hasattr(command, "commands"):
        name, *words = words
        assert name in command.commands, name
        command = command.commands[name]
    command.make_context(command.name, words)


def queries() -> list[tuple[str, str]]:
    """Page, and query."""
    return [(path.stem, line) for path in PAGES for block in QUERIES.findall(text(path)) for line in block.splitlines()]


def test_every_query_can_be_asked() -> None:
    assert len(queries()) > 60
    known = {**metrics(), **recorded(), "up": set[str]()}
    for page, query in queries():
        for selector in selectors(promql_parser.parse(query)):
            if selector.name.startswith("vllm:"):
                continue
            labels = known[selector.name] | {"job", "instance"}
            assert {matcher.name for matcher in selector.matchers.matchers} <= labels, (page, query)
            by = {name.strip() for names in re.findall(r"by \(([^)]*)\)", query) for name in names.split(",")}
            assert by <= labels, (page, query)


def test_every_query_of_vllm_can_be_asked() -> None:
    asked = {
        s.name for _, query in queries() for s in selectors(promql_parser.parse(query)) if s.name.startswith("vllm:")
    }
    assert asked
    assert asked <= series().keys()
