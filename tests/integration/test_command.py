"""The command line: what it prints, and what it says when something is wrong: one line, exit status 1."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from router.artifact import PACKAGED
from tests.integration.conftest import ROOT, serve

EXPERTS = (ROOT / "experts.yaml").read_text("utf-8")


PATIENCE = 300.0  # seconds for a command to end, one that trains among them, on a machine that others use too


def run(
    *arguments: str, stdin: str = "", cwd: Path = ROOT, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway.cli", *arguments]
    env = {**os.environ, "COLUMNS": "200", **(environment or {})}
    return subprocess.run(
        command, input=stdin, cwd=cwd, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def one_line(result: subprocess.CompletedProcess[str]) -> str:
    """The single line of an error with exit status 1."""
    assert result.returncode == 1, result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def test_a_port_in_use_is_told_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = one_line(run("serve", "--port", str(port)))
    assert f"port {port}" in line
    assert "--port" in line


def test_no_experts_file_says_how_to_name_one(tmp_path: Path) -> None:
    line = one_line(run("serve", cwd=tmp_path))
    assert "experts.yaml" in line
    assert "--config" in line


def test_it_refuses_to_listen_to_others_without_a_key_and_says_how_to() -> None:
    line = one_line(run("serve", "--host", "0.0.0.0", environment={"MOE_GATEWAY_KEYS": ""}))  # noqa: S104
    assert "MOE_GATEWAY_KEYS=" in line


def test_keys_that_cannot_be_read_are_told_without_showing_them() -> None:
    line = one_line(run("serve", environment={"MOE_GATEWAY_KEYS": "topsecret"}))
    assert "name:key" in line
    assert "topsecret" not in line


def test_every_error_of_a_file_is_told_with_its_line(tmp_path: Path) -> None:
    broken = tmp_path / "experts.yaml"
    text = EXPERTS.replace("context_window: 4096", "context_windw: 4096", 1).replace(
        "fallback: general", "fallback: nobody", 1
    )
    broken.write_text(text, "utf-8")
    expected = text.splitlines().index("    context_windw: 4096") + 1
    serving, checking = run("serve", "--port", "0", "--config", str(broken)), run("check", str(broken))
    assert (serving.returncode, checking.returncode) == (1, 1)
    found = [line for line in checking.stdout.splitlines() if ": error: " in line]
    for lines in (serving.stderr.splitlines(), found):
        assert len(lines) == 2
        assert "fallback" in lines[0]
        assert "'general'" in lines[0] or "known are" in lines[0]
        assert f"experts.yaml:{expected}:5" in lines[1]
        assert "did you mean 'context_window'" in lines[1]
    problems = json.loads(run("check", str(broken), "--json").stdout)["problems"]
    assert [p["line"] for p in problems][1] == expected


def test_a_good_file_is_fine() -> None:
    result = run("check")
    assert result.returncode == 0
    assert "4 experts" in result.stdout


def legal_examples() -> list[str]:
    return [
        "Is a verbal contract enforceable in Spain?",
        "What does force majeure mean in a lease?",
        "Summarise the holding of this appeal court judgment",
        "Can my employer enforce a non-compete clause?",
        "Draft an indemnity clause for a software licence",
        "What is the statute of limitations for breach of contract?",
        "Explain consideration in contract law",
        "Does this clause violate consumer protection statutes?",
        "Who owns the copyright of a work made for hire?",
        "Write a cease and desist letter about a trademark",
    ]


def two_experts(first: str, second: str, examples: list[str]) -> str:
    """The text of an experts file: an expert for the built-in domain `first`, and one for `second`, added with `examples`.

    JSON, which YAML includes. Its router tells the built-in domains and `second` apart, so that no artifact is there for it:
    the first command that needs one trains it, from the vectors that the package ships.
    """
    return json.dumps(
        {
            "version": 1,
            "domains": {second: {"examples": examples}},
            "experts": {
                name: {"model": "m", "domains": [name], "upstream": {"vllm": ["http://127.0.0.1:9/v1"]}}
                for name in (first, second)
            },
        }
    )


@pytest.fixture
def own_state(tmp_path: Path) -> Path:
    """A state folder whose router was trained on just this corpus, so that it is preferred over the packaged one."""
    shutil.copytree(PACKAGED, tmp_path / "router")
    return tmp_path


def test_a_damaged_artifact_is_told_with_what_to_do(own_state: Path) -> None:
    head = next((own_state / "router").glob("heads-*.npz"))
    head.write_bytes(head.read_bytes()[:-10])
    line = one_line(run("serve", "--port", "0", "--state", str(own_state)))
    assert "damaged" in line
    assert "moe-gateway train" in line
    (own_state / "router" / "manifest.json").write_text("{", "utf-8")
    assert "moe-gateway train" in one_line(run("route", "hello", "--state", str(own_state)))


@pytest.mark.timeout(4 * PATIENCE)  # four commands, two of which train
def test_a_missing_file_of_the_artifact_is_told_and_train_mends_it(tmp_path: Path) -> None:
    config = tmp_path / "experts.yaml"
    config.write_text(two_experts("general", "legal", legal_examples()), "utf-8")
    trained = run("train", "--config", str(config))
    assert trained.returncode == 0, trained.stderr
    assert "held out" in trained.stdout
    next((tmp_path / ".moe-gateway" / "router").glob("heads-*.npz")).unlink()
    line = one_line(run("route", "hello", "--config", str(config)))
    assert "is missing" in line
    assert "moe-gateway train" in line
    assert run("train", "--config", str(config)).returncode == 0
    assert run("route", "hello", "--config", str(config)).returncode == 0


def test_a_domain_of_ones_own_is_trained_on_the_way_up(tmp_path: Path) -> None:
    config = tmp_path / "experts.yaml"
    config.write_text(two_experts("bio", "legal", legal_examples()), "utf-8")
    question = "Is an oral agreement binding under the statute of frauds?"
    result = run("route", question, "--config", str(config), "--json")
    assert result.returncode == 0, result.stderr
    assert "fitting the transformer stage" in result.stderr
    decision = json.loads(result.stdout)
    assert set(decision["probabilities"]) == {"code", "math", "bio", "general", "legal"}
    assert decision["domain"] == "legal"
    again = run("route", question, "--config", str(config))
    assert "fitting" not in again.stderr


def test_batch_routing_answers_every_line_in_order() -> None:
    lines = [
        '{"id": 1, "prompt": "Integrate x^2 from 0 to 3", "other": true}',
        "not json",
        '{"id": "c", "messages": [{"role": "user", "content": "Write a SQL join"}]}',
        '{"id": "d"}',
        '{"id": "e", "prompt": ""}',
        '{"id": "f", "prompt": "What do ribosomes do?"}',
    ]
    result = run("route", "--input", "-", stdin="\n".join(lines))
    assert result.returncode == 0, result.stderr
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [a["id"] for a in answers] == [1, 2, "c", "d", "e", "f"]
    assert ["error" in a for a in answers] == [False, True, False, True, True, False]
    good = [a for a in answers if "error" not in a]
    assert [a["domain"] for a in good] == ["math", "code", "bio"]
    keys = {"id", "expert", "domain", "confidence", "probabilities", "stage", "reason", "latency_ms"}
    assert all(set(a) == keys for a in good)


def test_batch_routing_reads_and_writes_files(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"id": 7, "prompt": "Why do cats purr?"}\n', "utf-8")
    assert run("route", "--input", str(source), "--output", str(target)).returncode == 0
    assert json.loads(target.read_text("utf-8"))["id"] == 7
    assert "no-such" in one_line(run("route", "--input", str(tmp_path / "no-such.jsonl")))


def test_evaluate_measures_and_prints_json(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Reverse a linked list in Go", "domain": "code", "part": "plain"},
        {"prompt": "What is 12% of 340?", "domain": "math", "part": "plain"},
        {"prompt": "How do vaccines train immunity?", "domain": "bio", "part": "plain"},
        {"prompt": "Plan a birthday party for my aunt", "domain": "general", "part": "plain"},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    report = json.loads(run("evaluate", str(path), "--json", "--quick").stdout)
    assert report["parts"]["plain"]["rows"] == 4
    assert report["parts"]["plain"]["accuracy"] >= 0.75
    path.write_text('{"prompt": "no label"}', "utf-8")
    assert "rows.jsonl:1" in one_line(run("evaluate", str(path)))


def test_called_wrongly_is_exit_status_2() -> None:
    assert run("serve", "--port", "many").returncode == 2
    assert run("route").returncode == 2
    assert run("nonsense").returncode == 2


@pytest.mark.parametrize("command", ["serve", "check", "route", "train", "evaluate"])
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = run(command, "--help")
    assert result.returncode == 0
    assert "Example: moe-gateway" in result.stdout


def test_serving_imports_neither_torch_nor_litellm_nor_scikit_learn() -> None:
    program = (
        "import sys, gateway.serving, gateway.app\n"
        "from pathlib import Path\n"
        "from gateway.app import create_app\n"
        "from gateway.settings import Settings\n"
        "from router.experts import load_experts\n"
        "from router.training.provision import load_or_train\n"
        "from router.decision import Query\n"
        "router = load_or_train(load_experts(Path('experts.yaml')), Path('.no-state'), lambda *a: None)\n"
        "router.decide(Query('hello'))\n"
        "create_app(Settings(), router)\n"
        "heavy = {'torch', 'sentence_transformers', 'transformers', 'sklearn', 'scipy', 'litellm', 'openai', 'onnx'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_log_is_json_and_holds_no_prompt(tmp_path: Path) -> None:
    import httpx

    with serve("--config", str(ROOT / "experts.yaml"), "--state", str(tmp_path)) as command:
        secret = "the-launch-code-is-swordfish"
        body = {"model": "auto", "max_tokens": 3, "messages": [{"role": "user", "content": secret}]}
        assert httpx.post(f"{command.url}/v1/chat/completions", json=body, timeout=30).status_code == 200
        httpx.post(f"{command.url}/v1/chat/completions", json={**body, "model": secret}, timeout=30)
    screen = "".join(command.screen)
    lines = [json.loads(line) for line in screen.splitlines() if line.startswith("{")]
    assert [line["status"] for line in lines if line["event"] == "request"] == [200, 404]
    assert "swordfish" not in screen
    assert "swordfish" not in (tmp_path / "logs" / "smollm2.log").read_text("utf-8", "replace")
