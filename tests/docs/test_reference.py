"""docs/reference is what the code makes of it now, and leaves out nothing that there is."""

from __future__ import annotations

import re

import pytest
import typer.main

from gateway.cli import app
from router.experts import NOT_WRITTEN, ExpertsFile
from tests.deploy.gateways import paths
from tests.docs.reference import FOLDER, WRITTEN


@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_it_is_what_the_code_says(name: str) -> None:
    assert (FOLDER / name).read_text("utf-8") == WRITTEN[name](), "it is out of date: make reference"


def test_every_page_is_written() -> None:
    assert {path.name for path in FOLDER.iterdir()} == WRITTEN.keys()


def test_every_key_is_there() -> None:
    """By the models that read the file, not by the schema that the page is made of."""
    page = (FOLDER / "experts.md").read_text("utf-8")
    rows = set(re.findall(r'<a id="[\w-]+-(\w+)"></a>`\1`', page))
    models = ExpertsFile.model_json_schema()
    names = {name for part in (models, *models["$defs"].values()) for name in part.get("properties", {})}
    assert names - {*NOT_WRITTEN, "path", "texts", "secrets"} - rows == set()
    assert all(row.count(" | ") == 3 for row in page.splitlines() if row.startswith("| <a"))


def test_every_path_is_there() -> None:
    page = (FOLDER / "api.md").read_text("utf-8")
    told = set(re.findall(r"^### (?:GET|POST) (\S+)$", page, re.MULTILINE))
    assert {path for path in paths() if path != "/openapi.json"} <= {
        re.sub(r"/\{\w+\}$", "", path) for path in told
    } | told


def test_every_command_is_there_with_an_example() -> None:
    page = (FOLDER / "commands.md").read_text("utf-8")
    sections = dict(re.findall(r"^## (moe-gateway[^\n]*)\n\n```text\n(.*?)```", page, re.MULTILINE | re.DOTALL))
    command = typer.main.get_command(app)
    named = {f"moe-gateway {name}" for name, inner in command.commands.items() if not inner.hidden}  # type: ignore[attr-defined]
    assert named <= sections.keys()
    groups = {name for name in sections if any(other.startswith(f"{name} ") for other in sections)}
    assert [name for name, text in sections.items() if "Example" not in text and name not in groups] == []
