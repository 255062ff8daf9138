from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app, main
from gateway.commands.corpus import print_balance
from gateway.console import out
from router.authoring.authored import AuthoredRow
from router.authoring.balance import Balance

ROWS = [
    {
        "prompt": "Which moth has no [b]mouth[/b]?",
        "domain": "bio",
        "lang": "en",
        "style": "ask",
        "topic": "botany-zoology",
    },
    {"prompt": "Is 91 prime?", "domain": "math", "lang": "en", "style": "asked"},
    {"prompt": "Ist 91 eine Primzahl?", "domain": "math", "lang": "de", "style": "ask"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "corpus"
    path.mkdir()
    (path / "mixed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["corpus", *map(str, arguments)])


def test_problems_are_lines_with_their_place_and_the_exit_status_is_1(folder: Path) -> None:
    result = run(folder)
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert "corpus/mixed.jsonl:2: row: unknown style 'asked'; did you mean 'ask'?" in lines
    assert "corpus: balance: code has 0% of the rows; 15% to 40% are wanted" in lines
    assert result.stdout.splitlines()[-1].endswith("balance, 1 row")


def test_what_there_is_comes_in_tables(folder: Path) -> None:
    cells = [line.split() for line in run(folder).stdout.splitlines()]
    assert ["rows", "rows", "code", "math", "bio", "general"] in cells
    assert ["all", "3", "·", "2", "1", "·"] in cells
    assert ["de", "1", "·", "1", "·", "·"] in cells
    assert ["under", "10", "3", "·", "2", "1", "·"] in cells
    assert ["botany-zoology", "1", "·", "·", "1", "·"] in cells


def test_json_says_the_same(folder: Path) -> None:
    result = run(folder, "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert (document["ok"], document["rows"], document["languages"]["de"]) == (False, 3, {"math": 1})
    assert {"file": "corpus/mixed.jsonl", "line": 2, "check": "row"}.items() <= document["problems"][-1].items()


def test_a_leak_into_the_corpus_is_found(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "set.jsonl"
    other.write_text(json.dumps({"prompt": "is 91 PRIME", "domain": "math"}) + "\n", "utf-8")
    problems = json.loads(run(folder, "--against", other, "--json").stdout)["problems"]
    assert [(p["line"], p["check"]) for p in problems if p["check"] == "leak"] == [(2, "leak")]


def test_a_set_or_a_corpus_that_is_not_there_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments, message in (
        (["--against", str(folder / "none.jsonl")], f"error: there is no {folder / 'none.jsonl'}"),
        ([str(folder / "empty")], f"error: no training prompts in {folder / 'empty'}"),
    ):
        monkeypatch.setattr("sys.argv", ["moe-gateway", "corpus", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 1
        assert message in capsys.readouterr().err


def test_names_are_printed_as_they_are() -> None:
    row = AuthoredRow("f", 1, {"prompt": "p", "domain": "bio", "topic": "[b]old[/b]\x1b[2J"})
    with out.capture() as captured:
        print_balance(Balance.of([row]))
    assert "[b]old[/b]\\x1b[2J" in captured.get()
