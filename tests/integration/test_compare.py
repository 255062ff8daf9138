"""moe-gateway compare, against running gateways."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from tests.fakes.upstream import FakeServer, chunk, endless, status, streams, usage_chunk
from tests.integration.conftest import STARTING, Start, experts_yaml

RIGHT = streams(chunk({"content": "it is 42"}), chunk({}, "stop"), usage_chunk(), b"data: [DONE]\n\n")
WRONG = streams(chunk({"content": "it is 41"}), chunk({}, "stop"), usage_chunk(), b"data: [DONE]\n\n")
PROMPTS = [{"id": f"p{i}", "prompt": f"what is {i}?", "domain": "math", "expected": 42} for i in range(3)]


class Case:
    """A running gateway over `servers`, its experts.yaml and a file of prompts."""

    def __init__(self, folder: Path, start: Start, servers: list[FakeServer]) -> None:
        self.folder, self.servers = folder, servers
        self.config, self.prompts, self.output = folder / "experts.yaml", folder / "p.jsonl", folder / "out"
        self.config.write_text(experts_yaml(*servers[:2]), "utf-8")
        self.ask(PROMPTS)
        servers[0].behaviour, servers[1].behaviour = RIGHT, WRONG
        self.gateway = start(self.config.read_text("utf-8"))

    def ask(self, prompts: list[dict[str, Any]]) -> None:
        self.prompts.write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts), "utf-8")

    def arguments(self, *more: str) -> list[str]:
        named = {"prompts": self.prompts, "config": self.config, "url": self.gateway.url, "output": self.output}
        return ["compare", *(word for name, value in named.items() for word in (f"--{name}", str(value))), *more]

    def run(self, *more: str) -> Any:
        return CliRunner().invoke(app, self.arguments(*more), catch_exceptions=False)

    @property
    def document(self) -> Any:
        return json.loads(self.folder.joinpath("out.json").read_text("utf-8"))


@pytest.fixture
def case(tmp_path: Path, start: Start, servers: list[FakeServer]) -> Case:
    return Case(tmp_path, start, servers)


def test_answers_are_set_side_by_side_graded_and_told(case: Case) -> None:
    result = case.run("--experts", "one,two,auto")
    assert result.exit_code == 0, result.output
    assert "3 of 3" in result.output
    assert "0 of 3" in result.output
    document = case.document
    assert {name: figures["quality"]["math"]["mean"] for name, figures in document["targets"].items()} == {
        "one": 1.0, "two": 0.0, "auto": 1.0,
    }  # fmt: skip
    assert document["targets"]["auto"]["experts"] == {"one": 3}
    assert document["prompts"][1]["answers"]["two"]["text"] == "it is 41"
    assert document["targets"]["one"]["cost_usd"] == pytest.approx(3 * (8 * 1 + 3 * 0.5 + 4 * 2) / 1e6)
    page = case.folder.joinpath("out.html").read_text("utf-8")
    assert page.count("it is 41") == 3
    assert page.count("it is 42") == 6


def test_measured_quality_goes_into_the_file_and_nothing_else_does(case: Case) -> None:
    before = case.config.read_text("utf-8")
    few = case.run("--experts", "one,two,auto", "--write-quality")
    assert few.exit_code == 1
    assert case.config.read_text("utf-8") == before
    result = case.run("--experts", "one,two,auto", "--write-quality", "--least", "3")
    assert result.exit_code == 0, result.output
    assert "one: math 0.5 → 1.00" in result.output
    after = case.config.read_text("utf-8").splitlines()
    changed = [(old, new) for old, new in zip(before.splitlines(), after, strict=True) if old != new]
    assert [new for _, new in changed] == [
        "    domains: {code: 0.5, math: 1, bio: 0.5, general: 0.5}", "    domains: {code: 0.5, math: 0, bio: 0.5, general: 0.5}",
    ]  # fmt: skip


def test_what_another_expert_answered_is_not_the_expert_s_quality(case: Case) -> None:
    case.servers[1].behaviour = status(500)
    result = case.run("--experts", "two", "--write-quality", "--least", "1")
    assert result.exit_code == 1
    assert "nothing was measured well enough" in result.stderr
    assert case.document["targets"]["two"]["stood_in"] == 3
    assert case.document["targets"]["two"]["quality"] == {}


def test_a_run_goes_on_where_it_stopped_and_asks_only_what_failed(case: Case) -> None:
    case.servers[0].behaviour = case.servers[1].behaviour = status(400)
    failed = case.run("--experts", "one")
    assert failed.exit_code == 1
    assert case.document["targets"]["one"]["failed"] == 3
    assert "one: 3 × refused with 400" in " ".join(failed.stderr.split())
    case.servers[0].behaviour = RIGHT
    assert case.run("--experts", "one").exit_code == 0
    asked = len(case.servers[0].requests)
    case.ask([*PROMPTS, {"id": "new", "prompt": "and now?", "domain": "math", "expected": 43}])
    again = case.run("--experts", "one")
    assert "3 answers are in" in again.stderr
    assert len(case.servers[0].requests) == asked + 1
    assert case.document["targets"]["one"]["quality"]["math"]["right"] == 3
    assert case.run("--experts", "one", "--fresh").exit_code == 0
    assert len(case.servers[0].requests) == asked + 1 + 4


def test_a_run_that_is_stopped_keeps_what_it_has(case: Case) -> None:
    case.servers[1].behaviour = endless
    command = [sys.executable, "-m", "gateway.cli", *case.arguments("--experts", "one,two")]
    journal = case.folder / "out.jsonl"
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what runs in the background may ignore it
    )  # fmt: skip
    until = time.monotonic() + STARTING
    while time.monotonic() < until and (not journal.exists() or journal.read_bytes().count(b"\n") < 3):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    try:
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 1
    assert "3 answers are kept" in told
    assert "Traceback" not in told
    asked = len(case.servers[0].requests)
    case.servers[1].behaviour = WRONG
    assert case.run("--experts", "one,two").exit_code == 0
    assert len(case.servers[0].requests) == asked


def test_tests_run_only_where_they_are_asked_for(case: Case) -> None:
    case.ask([{"id": "t", "prompt": "?", "domain": "code", "test": "grep -q 42"}])
    aside = case.run("--experts", "one,two")
    assert "not graded without --run-tests" in aside.stderr
    assert case.document["targets"]["one"]["quality"] == {}
    assert case.run("--experts", "one,two", "--run-tests").exit_code == 0
    quality = {name: figures["quality"]["code"]["mean"] for name, figures in case.document["targets"].items()}
    assert quality == {"one": 1, "two": 0}


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--experts", "oen"], "there is no 'oen'; did you mean 'one'?"),
        (["--experts", " ,"], "name one or more"),
        (["--experts", "one", "--url", "ftp://x"], "--url: not an http"),
    ],
)
def test_calls_that_cannot_be_meant_are_refused(case: Case, more: list[str], says: str) -> None:
    result = case.run(*more)
    assert result.exit_code == 2
    assert says in " ".join(result.stderr.split())


def test_where_no_gateway_answers_it_says_how_to_start_one(case: Case) -> None:
    result = case.run("--experts", "one", "--url", "http://127.0.0.1:9")
    assert result.exit_code == 1
    assert "start one with moe-gateway serve" in " ".join(result.stderr.split())


def test_quality_needs_domains_that_the_router_knows(case: Case) -> None:
    case.ask([{"prompt": "?", "domain": "law", "expected": "x"}, {"prompt": "!", "expected": "x"}])
    result = case.run("--experts", "one", "--write-quality")
    assert result.exit_code == 2
    assert "no domain '', 'law'" in " ".join(result.stderr.split())
    case.ask([{"prompt": "?", "domain": "math"}])
    assert "needs graded prompts" in " ".join(case.run("--experts", "one", "--write-quality").stderr.split())
