from __future__ import annotations

import json
import shlex
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app, main
from gateway.commands.catalog import catalog
from router.cataloguing.catalog import load_catalog
from tests.fakes.catalogs import entry, text_of

MODELS = load_catalog().models
CODER = "qwen2.5-coder-7b-instruct"


def run(*arguments: str | Path, command: str = "catalog") -> Result:
    return CliRunner().invoke(app, [command, *map(str, arguments)])


def test_a_list_has_a_line_for_each_model_and_its_count_below() -> None:
    lines = run("list", "--sort", "size").stdout.splitlines()
    found = [line.split()[0] for line in lines if line.split() and line.split()[0] in MODELS]
    assert sorted(found) == sorted(MODELS)
    assert lines[0].split()[:3] == ["model", "parameters", "GB"]
    assert lines[-1] == f"{len(MODELS)} of {len(MODELS)} models"


def test_filters_choose_and_json_says_the_same() -> None:
    asked = (
        "list",
        "--task",
        "bio",
        "--license",
        "permissive",
        "--max-gb",
        "24",
        "--open",
        "partial",
        "--sort",
        "quality",
    )
    document = json.loads(run(*asked, "--json").stdout)
    assert document["object"] == "list"
    assert document["data"]
    for one in document["data"]:
        assert "bio" in one["tasks"]
        assert one["licence"]["kind"] == "permissive"
        assert one["memory_gb"][one["precision"]] <= 24
        assert one["openness"]["level"] in ("full", "partial")
    shown = run(*asked).stdout
    assert all(one["id"] in shown for one in document["data"])
    ranks = [one["quality"] for one in document["data"] if one["quality"] is not None]
    assert ranks == sorted(ranks, reverse=True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--task", "bi"), "did you mean bio?"),
        (("--max-gb", "much"), "max-gb is not 'much'; write a number of GB such as 24"),
        (("--min-context", "x"), "min-context is not 'x'"),
        (("--open", "closed"), "open is not 'closed'"),
        (("--sort", "worst"), "it is one of name, quality"),
        (("--family", "Lama"), "did you mean Llama?"),
    ],
)
def test_a_wrong_filter_is_told_and_the_exit_status_is_2(arguments: tuple[str, ...], told: str) -> None:
    result = run("list", *arguments)
    assert result.exit_code == 2
    assert told in " ".join(result.stderr.replace("│", " ").split())


def test_all_that_is_known_of_a_model_is_shown_with_where_it_stands() -> None:
    shown = run("show", MODELS[CODER].name).stdout
    assert shown.startswith(f"{CODER}\n")
    words = " ".join(shown.split())
    assert " ".join(MODELS[CODER].command) in words
    memory = MODELS[CODER].memory("4bit")
    assert memory is not None
    [row] = [line.split() for line in shown.splitlines() if line.startswith("4bit ")]
    assert row[:2] == ["4bit", f"{memory.weights:.1f}"]
    assert f"{memory.total:.1f}" in row
    for source in MODELS[CODER].sources.model_dump(exclude_none=True).values():
        assert source in words
    document = json.loads(run("show", CODER.upper(), "--json").stdout)
    assert (document["id"], document["name"]) == (CODER, MODELS[CODER].name)


def test_models_are_laid_side_by_side_on_the_screen_in_a_page_and_in_a_picture(tmp_path: Path) -> None:
    drawn = [key for key, model in MODELS.items() if model.price and model.scores and model.price.blended][:3]
    html, svg = tmp_path / "c.html", tmp_path / "c.svg"
    result = run("compare", *drawn, "--html", html, "--svg", svg)
    assert result.exit_code == 0, result.output
    assert result.stdout.split()[: len(drawn)] == drawn
    assert f"wrote {html}" in result.stderr
    root = ET.fromstring(svg.read_text("utf-8"))  # noqa: S314 - made a line above
    texts = ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert any(key in texts for key in drawn)
    page = html.read_text("utf-8")
    assert page.startswith("<!doctype html>")
    assert "default-src 'none'" in page
    assert "<svg" in page
    document = json.loads(run("compare", *drawn, "--json").stdout)
    assert [one["id"] for one in document["data"]] == drawn


@pytest.mark.parametrize("arguments", [(CODER,), (CODER, CODER), (CODER, "gpt-oss-20b", "--task", "x")])
def test_a_comparison_takes_two_models_and_a_task_that_there_is(arguments: tuple[str, ...]) -> None:
    assert run("compare", *arguments).exit_code == 2


def test_an_unknown_model_is_one_line_and_the_exit_status_is_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments in (["show", "gpt-oss-20"], ["compare", "gpt-oss-20", CODER]):
        monkeypatch.setattr("sys.argv", ["moe-gateway", "catalog", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 1
        [line] = capsys.readouterr().err.splitlines()
        assert "the catalogue has no model 'gpt-oss-20'; did you mean gpt-oss-20b" in line


def test_the_packaged_catalogue_is_fine_and_another_is_told_line_by_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("check").stdout == f"catalog.yaml: fine: {len(MODELS)} models\n"
    assert json.loads(run("check", "--json").stdout) == {"ok": True, "models": len(MODELS)}
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(text_of(a=entry(family="Lama", serve=["x"])), "utf-8")
    result = run("check", wrong, "--json")
    assert result.exit_code == 1
    problems = json.loads(result.stdout)["problems"]
    assert [(p["file"], p["key"]) for p in problems] == [
        ("wrong.yaml", "models.a.family"),
        ("wrong.yaml", "models.a.serve.0"),
    ]
    for path, told in (
        (wrong, "wrong.yaml:6:14: models.a.family: no family 'Lama'"),
        (tmp_path / "none", "there is no"),
    ):
        monkeypatch.setattr("sys.argv", ["moe-gateway", "catalog", "check", str(path)])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 1
        assert f"error: {told}" in capsys.readouterr().err


def test_counts_are_tables_and_json() -> None:
    assert f"| all | {len(MODELS)} |" in run("count").stdout
    assert json.loads(run("count", "--json").stdout)["all"]["all"]["models"] == len(MODELS)


def test_every_example_of_its_help_runs_as_it_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    examples = [line for command in catalog.registered_commands for line in _examples(command.callback.__doc__ or "")]
    assert len(examples) >= 4
    for example in examples:
        result = CliRunner().invoke(app, shlex.split(example)[1:])
        assert result.exit_code == 0, (example, result.output)


def _examples(doc: str) -> list[str]:
    return [line.partition("Example: ")[2] for line in doc.splitlines() if "Example: " in line]
