from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app, main
from router.experts import load_experts

ROOT = Path(__file__).parents[3]
CODER = "qwen2.5-coder-7b-instruct"
FILE = """\
version: 1   # the first
router: {fallback: general}

experts:
  # Everything else.
  general:
    model: m
    domains: {general: 0.9}
    upstream: {vllm: [http://10.0.0.1:8000/v1], api_key: "${SECRET_KEY}"}   # of ours
    fallbacks: []

aliases: {gpt-4o: auto}   # hard-coded
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SECRET_KEY", "top-secret")
    path = tmp_path / "experts.yaml"
    path.write_text(FILE, "utf-8")
    path.chmod(0o640)
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["experts", *map(str, arguments)])


def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> str:
    """What is told on standard error with exit status 1."""
    monkeypatch.setattr("sys.argv", ["moe-gateway", "experts", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1
    return capsys.readouterr().err


def test_an_expert_is_added_and_every_other_byte_stays(config: Path) -> None:
    result = run("add", CODER, "--id", "coder", "--config", config)
    assert result.exit_code == 0, result.output
    text = config.read_text("utf-8")
    head, _, tail = FILE.partition("\naliases:")
    assert text.startswith(head)
    assert text.endswith(f"\naliases:{tail}")
    expert = load_experts(config).experts["coder"]
    assert expert.model == "Qwen/Qwen2.5-Coder-7B-Instruct"
    assert list(expert.domains) == ["code"]
    assert expert.upstream.launch is not None
    assert expert.upstream.launch.gpus == (0,)
    assert "tools" in expert.capabilities
    assert (
        f"coder: written to {config}; worker: vllm serve Qwen/Qwen2.5-Coder-7B-Instruct --enable-auto" in result.stdout
    )
    assert config.stat().st_mode & 0o777 == 0o640
    assert os.listdir(config.parent) == ["experts.yaml"]


def test_the_shipped_file_takes_one_more(tmp_path: Path) -> None:
    before = (ROOT / "experts.yaml").read_text("utf-8")
    config = tmp_path / "experts.yaml"
    config.write_text(before, "utf-8")
    assert run("add", "medgemma-27b-text-it", "--gpu-memory", "80", "--config", config).exit_code == 0
    assert config.read_text("utf-8").startswith(before)
    assert "medgemma-27b-text-it" in load_experts(config).experts
    assert run("remove", "medgemma-27b-text-it", "--config", config).exit_code == 0
    assert config.read_text("utf-8") == before


def test_memory_and_gpus_decide_how_it_is_served(config: Path) -> None:
    asked = ("add", "llama-3.3-70b-instruct", "--config", config, "--dry-run", "--json")
    large = json.loads(run(*asked, "--gpu-memory", "80", "--gpus", "4").stdout)
    assert (large["precision"], large["gpus"]) == ("bf16", 4)
    assert large["command"][-2:] == ["--tensor-parallel-size", "4"]
    small = json.loads(run(*asked, "--gpu-memory", "80").stdout)
    assert (small["precision"], small["gpus"]) == ("4bit", 1)
    assert small["context_window"] < large["context_window"]
    assert small["gb_of_each_gpu"] <= 80
    result = run("add", "llama-3.3-70b-instruct", "--config", config, "--dry-run", "--gpu-memory", "80")
    assert "AWQ or GPTQ answers better: name one with --quantised" in result.stderr
    assert "Llama 3.3 Community License: " in result.stderr
    copy = run("add", "llama-3.3-70b-instruct", "--config", config, "--gpu-memory", "80", "--quantized", "Some/AWQ")
    assert "AWQ or GPTQ" not in copy.stderr
    assert load_experts(config).experts["llama-3.3-70b-instruct"].model == "Some/AWQ"


@pytest.mark.parametrize(("name", "precision"), [("Some/Coder-AWQ", "4bit"), ("Some/Coder-FP8-dynamic", "fp8")])
def test_a_quantised_copy_is_reckoned_with_its_own_size(config: Path, name: str, precision: str) -> None:
    asked = ("add", CODER, "--config", config, "--gpu-memory", "80", "--quantised", name, "--dry-run", "--json")
    found = json.loads(run(*asked).stdout)
    assert found["precision"] == precision
    assert "--quantization" not in found["command"]
    assert found["command"][2] == name


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("http://10.0.0.5:8000", "http://10.0.0.5:8000/v1"),
        ("http://10.0.0.5:8000/", "http://10.0.0.5:8000/v1"),
        ("https://vllm.example/coder/v1", "https://vllm.example/coder/v1"),
    ],
)
def test_with_an_address_nothing_is_launched(config: Path, url: str, kept: str) -> None:
    assert run("add", CODER, "--url", url, "--config", config).exit_code == 0
    upstream = load_experts(config).experts[CODER].upstream
    assert upstream.launch is None
    assert [replica.url for replica in upstream.vllm] == [kept]


def test_a_dry_run_shows_the_entry_and_writes_nothing(config: Path) -> None:
    result = run("add", CODER, "--config", config, "--dry-run")
    assert f"  {CODER}:\n" in result.stdout
    assert f"would go into {config}" in result.stdout
    assert config.read_text("utf-8") == FILE
    assert run("remove", "general", "--config", config, "--dry-run").exit_code == 1
    assert config.read_text("utf-8") == FILE


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((CODER, "--id", "general"), "has an expert 'general' already; name another with --id"),
        ((CODER, "--id", "auto"), "an expert's id is 1 to 64"),
        ((CODER, "--id", "a b\nc: d"), "an expert's id is 1 to 64"),
        ((CODER, "--id", "gpt-4o"), "aliases.gpt-4o: is the name of an expert"),
        (("no-such-model",), "the catalogue has no model"),
        ((CODER, "--url", "not an address"), "not an http:// or https:// address"),
        ((CODER, "--url", "http://u:p@h/v1"), "an address carries no credentials"),
        (("deepseek-r1", "--gpu-memory", "24"), "it does not fit on a GPU of 24 GB"),
    ],
)
def test_what_cannot_be_added_is_told_and_the_file_stays(
    config: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    told: str,
) -> None:
    assert told in refused(capsys, monkeypatch, "add", *arguments, "--config", config)
    assert config.read_text("utf-8") == FILE
    assert os.listdir(config.parent) == ["experts.yaml"]


def test_a_file_that_is_wrong_or_written_in_braces_is_left_alone(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = FILE.replace("fallback: general", "fallback: nobody")
    braces = 'version: 1\nexperts: {a: {model: m, domains: {code: 0.9}, upstream: {vllm: ["http://h/v1"]}}}\n'
    for text, told in ((wrong, "no expert 'nobody'"), (braces, "can be edited only where its entries stand below it")):
        config.write_text(text, "utf-8")
        assert told in refused(capsys, monkeypatch, "add", CODER, "--config", config)
        assert config.read_text("utf-8") == text
    assert "there is no" in refused(capsys, monkeypatch, "add", CODER, "--config", config.parent / "none.yaml")


def test_a_file_that_is_a_link_stays_one(config: Path) -> None:
    link = config.parent / "link.yaml"
    link.symlink_to(config)
    assert run("add", CODER, "--config", link).exit_code == 0
    assert link.is_symlink()
    assert CODER in load_experts(config).experts


def test_lines_that_end_as_in_windows_go_on_so(config: Path) -> None:
    config.write_bytes(FILE.replace("\n", "\r\n").encode())
    assert run("add", CODER, "--config", config).exit_code == 0
    data = config.read_bytes()
    assert data.count(b"\n") == data.count(b"\r\n") > FILE.count("\n")


def test_an_expert_is_removed_unless_others_need_it(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("add", CODER, "--id", "coder", "--config", config)
    whole = config.read_text("utf-8")
    told = refused(capsys, monkeypatch, "remove", "general", "--config", config)
    assert "router.fallback: no expert 'general'" in told
    assert "experts.coder.fallbacks.0: no expert 'general'" in told
    assert "it has general, coder" in refused(capsys, monkeypatch, "remove", "nobody", "--config", config)
    assert config.read_text("utf-8") == whole
    assert run("remove", "coder", "--config", config).stdout == f"coder: removed from {config}\n"
    assert config.read_text("utf-8") == FILE


def test_the_experts_of_a_file_are_listed_without_addresses_and_keys(config: Path) -> None:
    run("add", CODER, "--id", "coder", "--config", config)
    result = run("list", "--config", config)
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[0][:3] == ["expert", "model", "domains"]
    assert [row[0] for row in rows[1:]] == ["general", "coder"]
    assert "launched vllm × 1 on GPU 0" in result.stdout
    document = json.loads(run("list", "--config", config, "--json").stdout)
    assert [one["id"] for one in document["data"]] == ["general", "coder"]
    assert document["data"][0]["upstream"] == "vllm × 1"
    for output in (result.output, json.dumps(document)):
        assert "top-secret" not in output
        assert "10.0.0.1" not in output
