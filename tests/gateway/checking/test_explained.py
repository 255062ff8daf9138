"""Every value of a configuration with where it comes from, and no secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.checking.explained import Setting, explained
from gateway.checking.masking import MASK
from gateway.checking.report import examined
from gateway.commands.explainedscreen import pictured

BASE = """\
version: 1
experts:
  coder:
    model: big
    domains: [code, legal]
    upstream: {vllm: http://coder:8000/v1, api_key: "${CODER_KEY}"}
    timeouts: {total: 20m}
    price: {input: 0.5, output: 1.2}
    context_window: 4096
  general:
    model: small
    domains: {general: 0.9}
    defaults: {system: "${GENERAL_TOKEN}"}
    upstream: {launch: {env: {A: file:token, B: literal-secret, C: "${B_KEY:-other-secret}"}}}
    price: {gpu_hour: 2}
domains:
  legal: {examples: file:legal.txt}
"""
OVERLAY = """\
extends: base.yaml
experts:
  coder: {max_in_flight: "${NO_SUCH_CAP:-64}", price: null, queue: {wait: 1s}}
"""
SECRETS = {"CODER_KEY": "first-secret", "GENERAL_TOKEN": "second-secret", "B_KEY": "third-secret"}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Setting]:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    for name, text in (
        ("base.yaml", BASE), ("over.yaml", OVERLAY), ("legal.txt", "a\nb\nc\nd\ne"), ("token", "fourth-secret")
    ):  # fmt: skip
        (tmp_path / name).write_text(text, "utf-8")
    monkeypatch.chdir(tmp_path)
    return {".".join(map(str, setting.path)): setting for setting in explained(examined(Path("over.yaml")))}


def place(setting: Setting) -> str:
    return f"{setting.origin.file}:{setting.origin.line}" if setting.origin else "default"


@pytest.mark.parametrize(("key", "value", "where", "reference"), [
    ("experts.coder.model", "big", "base.yaml:4", ""),
    ("experts.coder.timeouts.total", 1200.0, "base.yaml:7", ""),
    ("experts.coder.timeouts.idle", 30.0, "default", ""),
    ("experts.coder.max_in_flight", 64, "over.yaml:3", "${NO_SUCH_CAP:-64}"),
    ("experts.coder.queue.wait", 1.0, "over.yaml:3", ""),
    ("experts.coder.queue.length", 100, "default", ""),
    ("experts.coder.price", None, "over.yaml:3", ""),
    ("experts.coder.domains.legal", 0.9, "base.yaml:5", ""),
    ("experts.coder.upstream.vllm.0.url", "http://coder:8000/v1", "base.yaml:6", ""),
    ("experts.coder.upstream.vllm.0.weight", 1.0, "default", ""),
    ("experts.coder.upstream.api_key", "${CODER_KEY}", "base.yaml:6", "${CODER_KEY}"),
    ("experts.coder.hedge", None, "default", ""),
    ("experts.general.price.gpu_hour", 2.0, "base.yaml:15", ""),
    ("experts.general.defaults.system", "${GENERAL_TOKEN}", "base.yaml:13", "${GENERAL_TOKEN}"),
    ("experts.general.upstream.launch.env.A", "file:token", "base.yaml:14", "file:token"),
    ("experts.general.upstream.launch.env.B", MASK, "base.yaml:14", ""),
    ("experts.general.upstream.launch.env.C", MASK, "base.yaml:14", ""),
    ("router.fallback", "general", "default", ""),
    ("domains.legal.examples", ["a", "b", "c", "d", "e"], "base.yaml:17", "file:legal.txt"),
    ("aliases", {}, "default", ""),
])  # fmt: skip
def test_where_a_value_comes_from(
    settings: dict[str, Setting], key: str, value: Any, where: str, reference: str
) -> None:
    setting = settings[key]
    assert (setting.value, place(setting), setting.reference) == (value, where, reference)


def test_no_secret_comes_out_and_each_value_once(settings: dict[str, Setting]) -> None:
    told = json.dumps([setting.described() for setting in settings.values()])
    told += "\n".join(line.plain for line in pictured(list(settings.values())))
    assert "secret" not in told
    assert "experts.coder.upstream.launch" not in told


def test_of_a_command_line_no_secret_comes_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "first-secret")
    path = tmp_path / "experts.yaml"
    args = "{args: '--seed 1 --hf-token ${MINE} --api-token=second-secret'}"
    path.write_text(
        f"version: 1\nexperts: {{a: {{model: m, domains: [general], upstream: {{launch: {args}}}}}}}\n", "utf-8"
    )
    found = {setting.path[-1]: setting for setting in explained(examined(path))}["args"]
    assert found.value == ["--seed", "1", "--hf-token", MASK, f"--api-token={MASK}"]
    assert "secret" not in json.dumps(found.described())


def test_a_described_value_says_whether_it_was_written(settings: dict[str, Setting]) -> None:
    assert settings["experts.coder.max_in_flight"].described() == {
        "key": "experts.coder.max_in_flight", "path": ["experts", "coder", "max_in_flight"], "value": 64,
        "from": "reference", "file": "over.yaml", "line": 3, "column": 26, "reference": "${NO_SUCH_CAP:-64}",
    }  # fmt: skip
    assert settings["router.head"].described()["from"] == "default"
    assert settings["experts.coder.model"].described()["from"] == "file"


def test_the_picture_is_the_file_as_it_counts(settings: dict[str, Setting]) -> None:
    lines = [line.plain.rstrip() for line in pictured(list(settings.values()))]
    assert lines[1:4] == ["experts:", "  coder:", lines[3]]
    assert lines[3].split() == ["model:", "big", "base.yaml:4"]
    assert lines[lines.index("      vllm:") + 1] == "        [0]:"
    assert ["examples:", "5", "prompts", "base.yaml:17", "file:legal.txt"] in [line.split() for line in lines]
    assert ["max_in_flight:", "64", "over.yaml:3", "${NO_SUCH_CAP:-64}"] in [line.split() for line in lines]
    columns = {line.index("base.yaml:") for line in lines if "base.yaml:" in line}
    assert len(columns) == 1


def test_of_a_file_that_is_wrong_nothing_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "experts.yaml"
    path.write_text("version: 2", "utf-8")
    assert explained(examined(path)) == []
