"""moe-gateway init: the file that one begins with is written whole, once, and is fine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app, main
from gateway.commands.init import INITIAL
from gateway.history import History
from router.experts import load_experts

ROOT = Path(__file__).parents[3]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_what_is_written_is_the_experts_file_of_the_repository() -> None:
    """Which a wheel has not: after a change, cp experts.yaml gateway/commands/initial.yaml."""
    assert INITIAL.read_bytes() == (ROOT / "experts.yaml").read_bytes()
    assert INITIAL.parent == ROOT / "gateway" / "commands"  # all of gateway/ is in the wheel


def test_it_can_be_served_and_edited_at_once(tmp_path: Path) -> None:
    config = tmp_path / "own.yaml"
    result = run("init", config)
    assert result.exit_code == 0, result.output
    assert f"moe-gateway serve --config {config}" in result.stdout
    assert run("check", config).exit_code == 0
    assert all(expert.stand_in for expert in load_experts(config).experts.values())
    named = config.read_text("utf-8").splitlines()[0].rpartition("$schema=")[2]
    schema = json.loads((tmp_path / named).read_text("utf-8"))
    assert schema == json.loads((ROOT / "experts.schema.json").read_text("utf-8"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["experts.schema.json", "own.yaml"]


def test_a_file_that_is_there_stays_or_goes_into_the_history(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "experts.yaml"
    config.write_bytes(b"caf\xe9: of mine\n")
    monkeypatch.setattr("sys.argv", ["moe-gateway", "init", str(config)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1
    assert "is there already; --force writes over it" in capsys.readouterr().err
    assert config.read_bytes() == b"caf\xe9: of mine\n"
    told = json.loads(run("init", config, "--force", "--json").stdout)
    assert told["written"] == [str(config), str(tmp_path / "experts.schema.json")]
    assert load_experts(config).experts
    kept = History(tmp_path / ".moe-gateway" / "history").entries(config)[0]
    assert kept.texts["experts.yaml"].encode("utf-8", "surrogateescape") == b"caf\xe9: of mine\n"


def test_where_nothing_can_be_written_nothing_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The schema's place is taken by a folder."""
    (tmp_path / "experts.schema.json").mkdir()
    monkeypatch.setattr("sys.argv", ["moe-gateway", "init", str(tmp_path / "experts.yaml")])
    with pytest.raises(SystemExit):
        main()
    assert "experts.schema.json: Is a directory; nothing was written" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["experts.schema.json"]
