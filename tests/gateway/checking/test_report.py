"""An experts file looked at whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.checking.report import CODES, RULES, examined
from tests.gateway.checking.files import expert

ROOT = Path(__file__).parents[3]
SHIPPED = ["experts.yaml", *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "deploy").rglob("experts*.yaml")))]


@pytest.mark.parametrize("name", SHIPPED)
def test_nothing_is_said_of_the_files_that_are_shipped(name: str) -> None:
    report = examined(ROOT / name)
    assert report.findings == []
    assert report.experts is not None


def written(folder: Path, **experts: dict[str, object]) -> Path:
    path = folder / "experts.yaml"
    path.write_text(json.dumps({"version": 1, "experts": experts}, indent=1), "utf-8")
    return path


def test_warnings_are_in_the_order_of_their_lines_and_can_be_left_out(tmp_path: Path) -> None:
    path = written(
        tmp_path, a=expert("a"), b=expert("b", price=None, domains=["code"]), c=expert("c", price=None, domains=["bio"])
    )
    report = examined(path)
    codes = [finding.code for finding in report.warnings]
    assert sorted(codes) == ["no-fallback", "no-fallback", "unpriced", "unpriced"]
    lines = [finding.problem.line for finding in report.warnings]
    assert lines == sorted(lines)
    assert {finding.problem.file for finding in report.warnings} == {str(path)}
    assert path.read_text("utf-8").splitlines()[lines[0] - 1].strip() == '"b": {'
    assert [f.code for f in examined(path, {"no-fallback"}).warnings] == ["unpriced"] * 2


def test_of_a_file_that_is_wrong_only_what_is_wrong_is_said(tmp_path: Path) -> None:
    report = examined(written(tmp_path, a=expert("a", price=None, modle="x")))
    assert report.experts is None
    assert [finding.severity for finding in report.findings] == ["error"]
    assert report.findings[0].problem.message.endswith("did you mean 'model'?")


def test_a_file_that_is_not_there_is_an_error_too(tmp_path: Path) -> None:
    report = examined(tmp_path / "none.yaml")
    assert [finding.problem.message for finding in report.errors] == ["is not there"]


def test_what_is_wrong_at_an_upstream_stands_where_the_file_names_it(tmp_path: Path) -> None:
    path = written(tmp_path, a=expert("a"))
    finding = examined(path).mismatch("a", "a-0: it could not be reached")
    assert '"upstream"' in path.read_text("utf-8").splitlines()[finding.problem.line - 1]


def test_findings_of_a_file_and_of_what_it_extends_have_the_lines_of_each(tmp_path: Path) -> None:
    base, over = tmp_path / "base.yaml", tmp_path / "sub" / "over.yaml"
    over.parent.mkdir()
    text = json.dumps({"version": 1, "experts": {"a": expert("a"), "b": expert("b", domains=["code"])}}, indent=1)
    base.write_text(text, "utf-8")
    over.write_text("extends: ../base.yaml\nexperts:\n  b: {price: null}\n", "utf-8")
    report = examined(over)
    assert [(f.code, f.problem.file, f.problem.line) for f in report.warnings] == [
        ("no-fallback", str(over), 3), ("unpriced", str(over), 3)
    ]  # fmt: skip
    base.write_text(text.replace('"model": "model-of-a"', '"model": 5'), "utf-8")
    over.write_text("extends: ../base.yaml\nexperts:\n  b: {prise: null}\n", "utf-8")
    report = examined(over)
    assert [f.problem.file for f in report.errors] == [str(over), str(base)]
    lines = [report.lines[f.problem.file][f.problem.line - 1].strip() for f in report.errors]
    assert lines == ["b: {prise: null}", '"model": 5,']


def test_every_code_belongs_to_one_rule_and_is_told_on_the_page() -> None:
    assert len(CODES) == len(set(CODES))
    assert len(RULES) == len(set(RULES))
