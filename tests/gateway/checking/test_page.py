"""What docs/check.md says, and the hook and the workflow that it shows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.checking.report import CODES
from gateway.cli import app
from router.yamlfile import YamlFile

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "check.md").read_text("utf-8")
SHIPPED = [
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "experts.yaml", *sorted((ROOT / "deploy").rglob("experts*.yaml")))
]


def shown(title: str) -> str:
    """The block with that title."""
    match = re.search(rf'^```yaml title="{re.escape(title)}"\n(.*?)^```', PAGE, re.M | re.S)
    assert match, title
    return match[1]


def hook() -> dict[str, Any]:
    text = (ROOT / ".pre-commit-hooks.yaml").read_text("utf-8")
    (only,) = YamlFile.parse(text, ".pre-commit-hooks.yaml").data
    return dict(only)


def test_every_kind_of_warning_is_told_on_the_page_and_no_other() -> None:
    assert re.findall(r"^\| `([a-z][a-z0-9-]+)` \|", PAGE, re.M) == CODES


def test_githubs_schema_takes_the_workflow(tmp_path: Path) -> None:
    workflow = tmp_path / "experts.yml"
    workflow.write_text(shown(".github/workflows/experts.yml"), "utf-8")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(workflow)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_hook_looks_at_experts_files_and_is_the_one_that_the_page_names() -> None:
    pattern = re.compile(hook()["files"])
    assert all(pattern.search(name) for name in SHIPPED)
    assert not any(pattern.search(name) for name in ("router/experts.py", "docs/experts-files.md", "other.yaml"))
    (repo,) = YamlFile.parse(shown(".pre-commit-config.yaml"), "page").data["repos"]
    assert [each["id"] for each in repo["hooks"]] == [hook()["id"]]
    assert {*hook()} == {"id", "name", "description", "entry", "language", "types", "files", "require_serial"}


@pytest.mark.parametrize("command", [hook()["entry"], *re.findall(r"- run: (moe-gateway check .*)", PAGE)])
def test_what_the_hook_and_the_workflow_run_is_fine_with_the_shipped_files(command: str) -> None:
    _, *words = command.split()
    files = [str(ROOT / name) for name in SHIPPED]
    run = CliRunner().invoke(app, [*(word for word in words if not word.endswith(".yaml")), *files])
    assert run.exit_code == 0, run.output
    assert run.stdout.count("fine") == len(SHIPPED)
