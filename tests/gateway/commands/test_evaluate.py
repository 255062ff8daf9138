from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app
from gateway.commands.evaluate import print_tables
from gateway.console import out
from router.dataset import OWN_SET, Row, read_rows
from router.experts import BUILT_IN_DOMAINS
from router.measuring.evaluation import Measurement
from router.measuring.requirements import GROUPS, Requirement, foresee
from tests.fakes.classifiers import worded_router
from tests.fakes.fleets import fleet

ROOT = Path(__file__).resolve().parents[3]
ROWS = [
    {"prompt": "Reverse a linked list in Go", "domain": "code", "part": "plain"},
    {"prompt": "What is 12% of 340?", "domain": "math", "part": "plain"},
    {"prompt": "How do vaccines train immunity?", "domain": "bio", "part": "plain"},
    {"prompt": "Plan a birthday party for my aunt", "domain": "math", "part": "wrong"},
]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)), "utf-8")
    return path


def run(file: Path, *arguments: str) -> Result:
    config = str(ROOT / "experts.yaml")
    state = str(file.parent / "state")
    return CliRunner().invoke(app, ["evaluate", str(file), "--config", config, "--state", state, *arguments])


def test_everything_is_printed_as_json_whose_keys_stay(rows: Path) -> None:
    result = run(rows, "--json", "--quick")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["parts"]["plain"]["accuracy"] == 1.0
    assert {"f1", "ece", "flips", "per_domain", "confusion"} <= set(document["parts"]["plain"])
    assert document["parts"]["wrong"]["accuracy"] == 0.0
    assert set(document) == {
        "artifact", "rows", "domains", "all", "parts", "slices", "decisions", "robustness", "conversation", "errors",
    }  # fmt: skip


def test_the_exit_status_is_0_where_all_requirements_are_met(rows: Path) -> None:
    result = run(rows, "--quick", "--require", "plain.accuracy=1", "--require", "plain.ece<=1")
    assert result.exit_code == 0, result.output


def test_the_exit_status_is_1_and_each_miss_has_its_line(rows: Path) -> None:
    result = run(
        rows, "--quick", "--require", "wrong.accuracy>=0.5", "--require", "plain.accuracy=1", "--require", "rows>=5"
    )
    assert result.exit_code == 1
    misses = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert misses == [
        "error: wrong.accuracy is 0; 0.5 or more is required",
        "error: rows is 4; 5 or more is required",
    ]
    assert "macro-F1" in result.stdout


@pytest.mark.parametrize(
    ("wanted", "told"), [("plain.accuracy", "NAME"), ("flips=0.1", "flips<=0.1"), ("plain.f2=0.5", "plain.f1")]
)
def test_the_exit_status_is_2_where_a_requirement_is_wrong(rows: Path, wanted: str, told: str) -> None:
    result = run(rows, "--quick", "--require", wanted)
    assert result.exit_code == 2
    assert "--require" in result.stderr
    assert told.replace("NAME", "plain.f1>=0.95") in " ".join(result.stderr.replace("│", " ").split())


def test_a_requirement_that_cannot_be_measured_is_refused_before_anything_is(rows: Path) -> None:
    for wanted in ("plain.f2=0.5", "latency.all.p50_ms<=1"):
        result = run(rows, "--quick", "--require", wanted)
        assert result.exit_code == 2
        assert "deciding" not in result.stderr


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return path


def test_half_a_character_is_measured_and_printed_like_any_other(tmp_path: Path) -> None:
    half = {"prompt": "\ud800 hi", "domain": "bio", "part": "\ud800", "lang": "\udfff"}
    file = write(tmp_path / "half.jsonl", half, half | {"domain": "general"})  # one of them is wrong
    printed = run(file, "--json", "--quick", "--require", "accuracy>=0.9", "--html", str(tmp_path / "page.html"))
    assert printed.exit_code == 1
    assert printed.stderr.splitlines()[-1].startswith("error: accuracy is 0.5")
    assert "\ud800" in json.loads(printed.stdout)["parts"]
    assert json.loads(printed.stdout)["errors"][0]["text"] == "\ud800 hi"
    assert run(file, "--quick").exit_code == 0


def test_names_cannot_command_the_terminal(tmp_path: Path) -> None:
    evil = "\x1b]0;x\x07\x1b[2J\u202e[b]"
    row = {"prompt": "Plan a birthday party", "domain": "math", "tags": [evil], "of": "1", "part": evil, "source": evil}
    named = [row | {"lang": evil, "style": evil, "id": f"{i}"} for i in range(12)]
    file = write(tmp_path / "evil.jsonl", *named, ROWS[0] | {"id": "1"})
    printed = run(file, "--quick")
    assert printed.exit_code == 0, printed.output
    refused = run(file, "--quick", "--require", "f3>=1")
    missed = run(file, "--quick", "--require", f"{evil}.f1>=1")
    assert (refused.exit_code, missed.exit_code) == (2, 1)
    for text in (printed.stdout, printed.stderr, refused.stderr, missed.stderr):
        assert not {"\x1b", "\x07", "\u202e"} & set(text)
    assert "\\x1b]0;x\\x07\\x1b[2J\\u202e[b]" in printed.stdout


def test_copies_are_made_where_they_are_asked_for(rows: Path) -> None:
    made = json.loads(run(rows, "--json", "--quick", "--copies", "3").stdout)["robustness"]["made"]
    assert made["capitals"]["rows"] == 3


def test_the_page_is_written_where_it_is_asked_for(rows: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    result = run(rows, "--quick", "--html", str(page))
    assert result.exit_code == 0, result.output
    assert f"wrote {page}" in result.stderr.replace("\n", "")
    text = page.read_text("utf-8")
    assert text.startswith("<!doctype html>")
    assert "rows.jsonl" in text
    assert "Plan a birthday party" in text


def test_what_cannot_be_measured_is_told(tmp_path: Path) -> None:
    missing = run(tmp_path / "none.jsonl")
    assert (missing.exit_code, "there is no" in missing.stderr) == (1, True)
    empty = tmp_path / "empty.jsonl.gz"
    empty.write_bytes(gzip.compress(b""))
    assert "has no rows" in run(empty).stderr


def test_the_floors_of_ci_are_figures_and_hold_flips_and_bounce() -> None:
    (floors,) = re.findall(r"^FLOORS := ((?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    wanted = [Requirement.parse(floor) for floor in floors.replace("\\", " ").split()]
    foresee(wanted, {row.part for row in read_rows(OWN_SET)}, BUILT_IN_DOMAINS, GROUPS)
    names = {requirement.name for requirement in wanted}
    assert {
        "robustness.made.together.flips",
        "conversation.one_domain.bounce",
        "conversation.changing.followed",
    } <= names


def document(names: int = 4) -> dict[str, Any]:
    """An evaluation in which everything is, of so many domains."""
    domains = [f"domain-{i}" for i in range(names)]
    router = worded_router(fleet({f"expert-{d}": {"domains": [d]} for d in domains}))
    rows = [Row(f"{d}? {i}", d, part=f"part-{i}", source="s") for d in domains for i in range(4)]
    rows += [Row("x", domains[0], language="ja"), Row("X", domains[0], origin="a", tags=frozenset({"typos"}))]
    rows.append(
        Row(domains[1], domains[1], turns=(domains[0], domains[1]), turn_domains=(domains[0], domains[1]), id="a")
    )
    return Measurement(router, rows).document(rows)


def test_a_part_called_all_stands_beside_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [Row("domain-0", "domain-0", part="all"), Row("domain-1", "domain-0")]
    router = worded_router(fleet({f"expert-{i}": {"domains": [f"domain-{i}"]} for i in range(2)}))
    print_tables(Measurement(router, rows).document(quick=True))
    cells = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["every", "row", "2", "0.500"] in [line[:4] for line in cells]
    assert ["all", "1", "1.000"] in [line[:3] for line in cells]


@pytest.mark.parametrize("names", [2, 4, 9])
def test_the_tables_fit_on_a_hundred_columns(names: int, capsys: pytest.CaptureFixture[str]) -> None:
    width, out.width = out.width, 100
    found = document(names)
    try:
        print_tables(found)
    finally:
        out.width = width
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 100
    assert "…" not in printed
    for word in (
        "macro-F1",
        "recall",
        "tf idf",
        "capitals",
        "in the file",
        "weakest slices",
        "bounce rate",
        "of 1 changes of domain followed",
        "together",
        "p99",
        "throughput",
    ):
        assert word in printed, word
    assert ("→ domain-1" in printed) == (len(found["domains"]) <= 6)
