from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app
from gateway.commands.evaluate import print_tables
from gateway.console import out
from router.dataset import Row
from router.measuring.evaluation import Measurement
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
        "p99",
        "throughput",
    ):
        assert word in printed, word
    assert ("→ domain-1" in printed) == (len(found["domains"]) <= 6)
