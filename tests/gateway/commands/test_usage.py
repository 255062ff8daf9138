from __future__ import annotations

import csv
import io
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from gateway.cli import app
from gateway.commands.usagescreen import compact, screen
from gateway.ledger import urls
from gateway.ledger.asked import EVER, Asked
from gateway.ledger.database import connected, migrate
from gateway.ledger.report import COUNTED, Figures, reported
from gateway.ledger.tables import daily, requests
from tests.fakes.ledgers import row

NOW = datetime.now(UTC)
TOTALS = dict.fromkeys((column.name for column in daily.c), 0)
OLD = TOTALS | {
    "day": date(2026, 1, 2),
    "expert": "coder",
    "caller": "team-a",
    "domain": "",
    "requests": 5,
    "cost_usd": 1.5,
}


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state folder of a gateway that has served."""
    folder = tmp_path_factory.mktemp("state")
    engine = connected(urls.in_file(folder / "ledger.db"))
    migrate(engine)
    rows = [
        row(1, at=NOW, caller="team-a"),
        row(
            2, at=NOW, caller="=cmd|' /C calc'!A0", expert="general", outcome="server_error", status=502, cost_usd=None
        ),
        row(3, at=NOW - timedelta(days=3), caller="\x1b[31mred\u202e", baseline_usd=0.125),
    ]
    with engine.begin() as connection:
        connection.execute(requests.insert(), rows)
        connection.execute(daily.insert(), [OLD])
    engine.dispose()
    return folder


def run(state: Path, *arguments: str, **environment: str) -> Result:
    given = {"MOE_GATEWAY_LEDGER": None, "MOE_GATEWAY_STATE": None, **environment}
    return CliRunner().invoke(app, ["usage", "--state", str(state), *arguments], env=given)


def test_the_table_has_a_row_a_group_and_the_total(state: Path) -> None:
    before = datetime.now(UTC)
    result = run(state, "--by", "key", "--since", "7d")
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    begins = {f"{now - timedelta(days=7):%Y-%m-%d}" for now in (before, datetime.now(UTC))}  # two around midnight
    assert (lines[0][:2], lines[0][2] in begins) == (["Usage", "from"], True)
    assert ["key", "requests", "errors"] in [line[:3] for line in lines]
    assert ["team-a", "1", "0"] in [line[:3] for line in lines]
    assert ["total", "3", "33.3%"] in [line[:3] for line in lines]
    assert "\x1b[31mred" not in result.stdout
    assert "\u202e" not in result.stdout
    assert "$-" not in result.stdout
    assert "-$0.1250" in result.stdout  # a saving that is none


def test_csv_and_json_say_the_same(state: Path) -> None:
    by = ("--by", "key,day", "--since", "7d")
    lines = list(csv.DictReader(io.StringIO(run(state, *by, "--csv").stdout)))
    told: Any = json.loads(run(state, *by, "--json").stdout)
    assert [line["day"] for line in lines] == [line["group"]["day"] for line in told["rows"]]
    assert [float(line["cost_usd"]) for line in lines] == [line["cost_usd"] for line in told["rows"]]
    assert {line["key"][:2] for line in lines} == {"te", "'=", "\x1b["}
    assert told["total"]["requests"] == len(lines) == 3


def test_what_was_rolled_up_is_counted_and_filters_keep_to_some(state: Path) -> None:
    whole: Any = json.loads(run(state, "--since", "all", "--by", "model", "--json").stdout)
    assert {line["group"]["model"]: line["requests"] for line in whole["rows"]} == {"coder-7b": 3, "(rolled up)": 5}
    assert whole["total"]["cost_usd"] == 2.0
    some: Any = json.loads(run(state, "--since", "all", "--expert", "coder", "--key", "team-a", "--json").stdout)
    assert some["total"]["requests"] == 6
    shown = run(state, "--since", "all", "--expert", "coder").stdout
    assert shown.startswith("Usage from the beginning to now, UTC, expert coder\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--by", "expart"), "did you mean expert?"),
        (("--since", "x"), "such as 7d"),
        (("--tz", "Nowhere"), "Europe/Berlin"),
        (("--csv", "--json"), "exclude each other"),
        (("--ledger", "mysql://x"), "sqlite:///"),
    ],
)
def test_called_wrongly_is_2(state: Path, arguments: tuple[str, ...], told: str) -> None:
    result = run(state, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr


def test_a_ledger_that_is_not_there_is_1_and_is_not_made(tmp_path: Path) -> None:
    for arguments in ((), ("--ledger", urls.in_file(tmp_path / "other.db")), ("--ledger", "none")):
        result = run(tmp_path, *arguments)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "there is no ledger" in result.stderr
        assert "none" in arguments or ".db: a gateway" in " ".join(result.stderr.split())
    assert not list(tmp_path.iterdir())
    result = run(tmp_path, MOE_GATEWAY_LEDGER="postgresql://moe:s3cret@127.0.0.1:1/x")
    assert (result.exit_code, "s3cret" in result.stderr) == (1, False)
    assert "cannot be read" in result.stderr


def figures(name: str, **sums: float) -> Figures:
    return Figures((name,), {**dict.fromkeys(COUNTED, 0), "requests": 12_345, "priced": 1, **sums}, 0.5, 2.0)


def drawn(width: int, *rows: Figures) -> list[str]:
    console = Console(width=width, record=True, file=io.StringIO(), force_terminal=True, color_system=None)
    console.print(screen(reported(Asked(("model",), EVER), rows, 0.5, 2.0), console), highlight=False)
    return console.export_text().splitlines()


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160])
def test_it_fits_the_terminal_and_leaves_out_what_is_missed_least(width: int) -> None:
    sums = {"input_tokens": 4.2e9, "cost_usd": 1234.5, "baseline_usd": 9876.5, "compared": 9, "compared_usd": 1234.5}
    names = ("a-long-name/of-a-model-that-few-terminals-have-room-for", "short")
    lines = drawn(width, *(figures(name, **sums) for name in names))
    assert max(map(len, lines)) <= width
    header = next(line.split() for line in lines if "requests" in line)
    assert header[:2] == ["model", "requests"]
    assert "cost" in header
    assert ("saved" in header) is (width >= 80)
    assert ("baseline" in header) is (width > 120)
    assert any(line.split()[:1] == ["short"] and "12,345" in line for line in lines)


def test_bars_are_as_long_as_what_is_spent_and_nothing_is_told_as_such() -> None:
    lines = drawn(120, figures("dear", cost_usd=2.0), figures("half", cost_usd=1.0))
    bars = {line.split()[0]: line.count("█") for line in lines if "█" in line}
    assert bars["dear"] >= 2 * bars["half"] > 0
    assert drawn(80) == ["Usage from the beginning to now, UTC", "no requests"]


def test_an_estimate_is_marked_and_told() -> None:
    lines = drawn(120, figures("hourly", estimated_usd=0.5, priced=0))
    assert any("~$0.5000" in line for line in lines)
    assert any("paid by the hour" in line for line in lines)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (999, "999"),
        (999.6, "1.00 k"),
        (1234, "1.23 k"),
        (99_960, "100 k"),
        (999_600, "1.00 M"),
        (2.5e13, "25.0 T"),
    ],
)
def test_large_numbers_keep_three_digits(value: float, shown: str) -> None:
    assert compact(value) == shown
