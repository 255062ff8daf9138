from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app
from gateway.commands.dashboards import FOLDER
from tests.deploy.files import ROOT

NAMES = {f"{name}.json" for name in ("overview", "experts", "routing", "cost", "gateway")}


def build(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["dashboards", "build", *map(str, arguments)])


def test_every_dashboard_gets_a_file_and_only_what_changed_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    assert json.loads(build("--output", folder, "--json").stdout)["changed"] == [*_written(folder)]
    assert {path.name for path in folder.iterdir()} == NAMES
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    (folder / "cost.json").write_text("{}")
    said = build("--output", folder)
    assert said.exit_code == 0
    assert "5 dashboards, 1 changed" in said.stdout
    assert [path.name for path in before if path.stat().st_mtime_ns != before[path]] == ["cost.json"]


def _written(folder: Path) -> list[str]:
    """In the order in which they were built."""
    return [
        name
        for name in ("overview.json", "experts.json", "routing.json", "cost.json", "gateway.json")
        if (folder / name).is_file()
    ]


def test_check_writes_nothing_and_names_what_is_not_as_built(tmp_path: Path) -> None:
    build("--output", tmp_path)
    assert build("--output", tmp_path, "--check").exit_code == 0
    (tmp_path / "cost.json").write_text("{}")
    (tmp_path / "overview.json").unlink()
    checked = build("--output", tmp_path, "--check")
    assert checked.exit_code == 1
    assert "cost.json" in checked.stderr
    assert "overview.json" in checked.stderr
    assert "experts.json" not in checked.stderr
    assert (tmp_path / "cost.json").read_text() == "{}"
    assert not (tmp_path / "overview.json").exists()
    as_json = build("--output", tmp_path, "--check", "--json")
    assert as_json.exit_code == 1
    assert json.loads(as_json.stdout)["changed"] == ["overview.json", "cost.json"]


def test_another_process_builds_the_same_bytes(tmp_path: Path) -> None:
    """Whatever order its sets are in."""
    build("--output", tmp_path)
    command = [sys.executable, "-m", "gateway.cli", "dashboards", "build", "--output", str(tmp_path), "--check"]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONHASHSEED": "1"}, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_without_the_extra_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("gateway.dashboards", "grafana_foundation_sdk"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "grafana_foundation_sdk", None)
    failed = build("--output", tmp_path)
    assert "pip install 'moe-gateway[dashboards]'" in str(failed.exception)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    failed = build("--output", tmp_path / "file" / "folder")
    assert isinstance(failed.exception, OSError)  # which `main` says in one line


def test_by_itself_it_writes_where_compose_looks() -> None:
    assert (ROOT / FOLDER / "README.md").is_file()
