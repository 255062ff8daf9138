"""`moe-gateway schema`."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from gateway.cli import app
from router.schema import experts_schema


def test_it_is_printed_or_written(tmp_path: Path) -> None:
    target = tmp_path / "experts.schema.json"
    printed, written = CliRunner().invoke(app, ["schema"]), CliRunner().invoke(app, ["schema", "--output", str(target)])
    assert printed.exit_code == written.exit_code == 0
    assert json.loads(printed.stdout) == experts_schema()
    assert target.read_text("utf-8") == printed.stdout
    assert written.stdout == ""
