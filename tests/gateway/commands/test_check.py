"""`check`, and what it says with --live."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app
from gateway.commands.serve import _banner
from gateway.settings import Settings
from router.experts import load_experts
from tests.fakes.adapters import Worker, worker_server


@pytest.fixture(autouse=True)
def _quiet_no_longer() -> Iterator[None]:
    yield
    logging.getLogger("moe_gateway").setLevel(logging.NOTSET)


def written(tmp_path: Path, url: str, **changes: Any) -> str:
    expert = {
        "model": "base", "domains": ["general"], "price": {"input": 1, "output": 1}, "upstream": {"vllm": [url]}, **changes
    }  # fmt: skip
    path = tmp_path / "experts.yaml"
    path.write_text(json.dumps({"version": 1, "experts": {"one": expert}}), "utf-8")
    return str(path)


def check(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["check", *arguments], env={"COLUMNS": "200"})


def test_without_live_nobody_is_asked(tmp_path: Path) -> None:
    worker = Worker("other")
    with worker_server(worker) as url:
        result = check(written(tmp_path, url))
    assert result.exit_code == 0
    assert "fine: 1 expert," in result.output
    assert worker.asked == 0


def test_all_as_the_file_says_is_status_0(tmp_path: Path) -> None:
    with worker_server(Worker()) as url:
        path = written(tmp_path, url, context_window=1024)
        result, facts = check(path, "--live"), check(path, "--live", "--json")
    assert result.exit_code == facts.exit_code == 0, result.output
    for said in ("one-0", " ms", "base", "1024 of 2048", "yes", "all are as the file says"):
        assert said in result.output
    assert "127.0.0.1" not in result.output + facts.output
    told = json.loads(facts.output)
    assert told["ok"] is True
    assert told["live"][0]["served"] is True


def test_what_is_not_is_said_and_is_status_1(tmp_path: Path) -> None:
    with worker_server(Worker("oth[red]er")) as url:
        path = written(tmp_path, url)
        result, facts = check(path, "--live"), check(path, "--live", "--json")
    assert result.exit_code == facts.exit_code == 1
    assert "model missing: base; its server has oth[red]er" in result.output
    assert "1 of 1 replicas are not as the file says" in result.output
    told = json.loads(facts.output)
    assert told["ok"] is False
    assert told["live"][0]["problems"] == ["model missing: base; its server has oth[red]er"]


def test_an_adapter_that_is_loaded_later_is_not_yet_there_and_no_fault(tmp_path: Path) -> None:
    with worker_server(Worker()) as url:
        upstream = {"vllm": [url], "adapter": {"name": "sql", "path": "/lora/sql"}}
        result = check(written(tmp_path, url, upstream=upstream), "--live")
    assert result.exit_code == 0
    assert "not yet" in result.output


def test_ask_has_a_token_written_and_goes_with_live_alone(tmp_path: Path) -> None:
    worker = Worker(list_body=b"?")
    with worker_server(worker) as url:
        path = written(tmp_path, url)
        result = check(path, "--live", "--ask", "--timeout", "30")
    assert result.exit_code == 0
    assert worker.generated == ["base"]
    assert "chat answered in" in result.output
    assert "as far as can be told" in result.output
    assert check(path, "--ask").exit_code == 2


@pytest.mark.parametrize("arguments", [[], ["--json"], ["--live"], ["--live", "--json"]])
def test_a_file_that_is_wrong_asks_nobody(arguments: list[str], tmp_path: Path) -> None:
    path = written(tmp_path, "http://127.0.0.1:9/v1", modle="x")
    result = check(path, *arguments)
    assert result.exit_code == 1
    if "--json" in arguments:
        assert "modle" in json.loads(result.output)["problems"][0]["key"]


def test_the_first_screen_of_serve_says_what_is_not_as_the_file_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = load_experts(Path(written(tmp_path, "http://127.0.0.1:9/v1")))
    _banner(Settings(), file, 1.0, ["one-0: model missing: base; its server has [x]"], {})
    assert "not as the file says: one-0: model missing: base; its server has [x]\n" in capsys.readouterr().out


def two_mistakes(tmp_path: Path) -> str:
    return written(tmp_path, "http://127.0.0.1:9/v1", modle="x", max_in_flight=0)


def test_errors_are_shown_with_their_lines_on_standard_output(tmp_path: Path) -> None:
    result = check(two_mistakes(tmp_path))
    assert result.exit_code == 1
    assert result.stdout.count("error: ") == 2
    assert result.stdout.count("^") > 2
    assert result.stdout.splitlines()[-1].endswith("experts.yaml: 2 errors")
    assert "\x1b" not in result.stdout  # colour is for terminals


def test_annotations_for_github(tmp_path: Path) -> None:
    path = two_mistakes(tmp_path)
    result = check(path, "--format", "github")
    assert result.exit_code == 1
    assert [line.split("::")[1].partition(",")[0] for line in result.stdout.splitlines()[:2]] == [
        f"error file={path}"
    ] * 2
    path = written(tmp_path, "http://127.0.0.1:9/v1", price=None)
    result = check(path, "--format", "github", "--live")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert "title=no-fallback::" in lines[0]
    assert lines[-2].endswith("one-0: it could not be reached")
    assert lines[-1] == f"{path}: 1 error, 2 warnings"


def test_warnings_are_shown_and_end_with_status_1_where_it_is_asked_to_be_strict(tmp_path: Path) -> None:
    path = written(tmp_path, "http://127.0.0.1:9/v1", price=None)
    result, strict = check(path), check(path, "--strict")
    assert (result.exit_code, strict.exit_code) == (0, 1)
    assert result.stdout == strict.stdout
    assert "fine: 1 expert," in result.stdout
    assert result.stdout.endswith("; 2 warnings\n")
    assert "[unpriced]" in result.stdout
    left = check(path, "--strict", "--ignore", "unpriced", "--ignore", "no-fallback", "--json")
    assert left.exit_code == 0
    assert json.loads(left.stdout)["warnings"] == []
    told = json.loads(check(path, "--format", "json").stdout)["warnings"]
    assert [warning["code"] for warning in told] == ["no-fallback", "unpriced"]
    assert set(told[0]) == {"file", "line", "column", "key", "message", "code"}
    assert json.loads(check(path, "--strict", "--json").stdout)["ok"] is False


def test_a_kind_of_warning_that_there_is_not_is_called_wrongly(tmp_path: Path) -> None:
    result = check(written(tmp_path, "http://127.0.0.1:9/v1"), "--ignore", "unprised")
    assert result.exit_code == 2
    assert "did you mean 'unpriced'" in result.output


def test_a_secret_that_was_written_by_mistake_is_not_shown(tmp_path: Path) -> None:
    upstream = {"vllm": ["http://127.0.0.1:9/v1"], "api_key": "hunter2-hunter2"}
    path = written(tmp_path, "", upstream=upstream)
    for arguments in ([], ["--json"], ["--format", "github"]):
        result = check(path, *arguments)
        assert result.exit_code == 1
        assert "api_key" in result.output
        assert "hunter2" not in result.output


def test_explained_each_value_stands_with_its_place(tmp_path: Path) -> None:
    path = written(tmp_path, "http://127.0.0.1:9/v1")
    result = check(path, "--explain")
    assert result.exit_code == 0
    assert "confidence_floor: 0.55" in result.stdout
    assert f"{path}:1" in result.stdout
    assert "fine: 1 expert," in result.stdout
    told = json.loads(check(path, "--explain", "--json").stdout)["values"]
    assert {"key": "router.head", "path": ["router", "head"], "value": "linear", "from": "default"} in told
    assert "values" not in json.loads(check(path, "--json").stdout)


def test_several_files_are_checked_each_and_one_that_is_wrong_is_enough(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    fine, wrong = written(tmp_path / "a", "http://127.0.0.1:9/v1"), two_mistakes(tmp_path)
    result = check(fine, wrong)
    assert result.exit_code == 1
    assert f"{fine}: fine" in result.stdout
    assert f"{wrong}: 2 errors" in result.stdout
    told = json.loads(check(fine, wrong, "--json").stdout)
    assert told["ok"] is False
    assert [(one["file"], one["ok"]) for one in told["files"]] == [(fine, True), (wrong, False)]
    assert check(fine, fine).exit_code == 0


@pytest.mark.parametrize("reference", ["${NO_SUCH_KEY}", "file:/no/such/key"])
def test_where_its_secrets_are_not_a_file_can_be_checked_all_the_same(reference: str, tmp_path: Path) -> None:
    path = written(tmp_path, "", upstream={"vllm": ["http://127.0.0.1:9/v1"], "api_key": reference})
    assert check(path).exit_code == 1
    assert check(path, "--without-secrets").exit_code == 0
    assert "assumed" not in check(path, "--without-secrets", "--explain").stdout
    literal = written(tmp_path, "", upstream={"vllm": ["http://127.0.0.1:9/v1"], "api_key": "sk-1"})
    assert check(literal, "--without-secrets").exit_code == 1
    assert check(path, "--without-secrets", "--live").exit_code == 2


def test_a_workers_environment_may_be_assumed_too(tmp_path: Path) -> None:
    env = {"HF_TOKEN": "${NO_SUCH_TOKEN}", "OTHER": "file:/no/such/file"}
    path = written(tmp_path, "", upstream={"launch": {"env": env}})
    assert (check(path).exit_code, check(path, "--without-secrets").exit_code) == (1, 0)
