from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app
from gateway.commands.explain import explained
from gateway.requests.routed import text_query
from router.decision import Query
from router.errors import NoExpertError
from tests.fakes.fleets import fleet
from tests.fakes.memory import experts_file, router_of

ROOT = Path(__file__).resolve().parents[3]
FILE = experts_file(
    {"coder": {"domains": {"code": 0.9}}, "general": {"domains": {"general": 0.9}}}, aliases={"gpt-4o": "auto"}
)
TALK = [
    {"role": "system", "content": "You are a chef."},
    {"role": "user", "content": "Write a Python function that reverses a linked list."},
    {"role": "assistant", "content": "def reverse(head): ..."},
    {"role": "user", "content": "now make it faster"},
]


def run(*arguments: str, stdin: str | bytes = "") -> Result:
    return CliRunner().invoke(app, ["explain", *arguments], input=stdin)


def test_a_document_has_the_decisions_keys_the_model_and_the_explanation() -> None:
    document = explained(router_of(FILE), text_query("code", "gpt-4o"))
    assert (document["expert"], document["model"], document["reason"]) == ("coder", "model-of-coder", "best")
    assert document["explanation"]["policy"]["name"] == "auto"
    assert document["explanation"]["why"].startswith("coder has the highest expected quality")
    assert json.loads(json.dumps(document)) == document


def test_a_model_that_is_not_known_is_told_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        explained(router_of(FILE), text_query("code", "codr"))
    assert left.value.code == 1
    assert "Did you mean 'coder'?" in capsys.readouterr().err


def test_what_no_expert_can_do_is_an_error() -> None:
    with pytest.raises(NoExpertError):
        explained(router_of(fleet({"a": {"domains": {"code": 1}}})), Query("code", needs=frozenset({"audio"})))


@pytest.mark.parametrize("arguments", [(), ("a prompt", "--messages", "-"), ("",), ("  \n ",)])
def test_it_takes_a_prompt_or_a_conversation(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "prompt" in result.output


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{nonsense", "not valid JSON"),
        (b"[]", "messages is empty"),
        (b'[{"role": "user"}]', "messages[0].content is empty"),
        (b'"text"', "Expected `object`"),
        (b"\xff\xfe[", "JSON"),
        (b"", "JSON"),
    ],
)
def test_a_file_that_is_no_conversation_is_named_with_what_is_wrong(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    path.write_bytes(content)
    for result, name in (
        (run("--messages", str(path)), "talk.json: "),
        (run("--messages", "-", stdin=content), "standard input: "),
    ):
        assert result.exit_code == 1, result.output
        assert name in result.stderr
        assert says in result.stderr


@pytest.mark.parametrize("name", ["", "nowhere/talk.json", "/"])
def test_a_file_that_cannot_be_read_is_named(name: str) -> None:
    result = run("--messages", name)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.output


@pytest.mark.parametrize("body", [TALK, {"messages": TALK, "model": "auto:best", "max_tokens": 5}])
def test_the_packaged_router_explains_a_conversation(body: Any, tmp_path: Path) -> None:
    config, state = str(ROOT / "experts.yaml"), str(tmp_path / "state")
    result = run("--messages", "-", "--config", config, "--state", state, "--json", stdin=json.dumps(body))
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    explanation = document["explanation"]
    assert document["domain"] == "code"
    assert explanation["policy"]["name"] == ("auto" if isinstance(body, list) else "auto:best")
    assert [turn["text"] for turn in explanation["conversation"]["turns"]] == [TALK[1]["content"], TALK[3]["content"]]
    assert len(explanation["nearest"]["examples"]) == 5
    similarities = [example["similarity"] for example in explanation["nearest"]["examples"]]
    assert similarities == sorted(similarities, reverse=True)
    assert [stage["answered"] for stage in explanation["stages"]].count(True) == 1


def test_the_packaged_router_explains_a_prompt_on_the_terminal(tmp_path: Path) -> None:
    prompt = "Why does my Rust borrow checker complain about this closure?"
    result = run(
        prompt, "--config", str(ROOT / "experts.yaml"), "--state", str(tmp_path / "state"), "--model", "auto:cheap"
    )
    assert result.exit_code == 0, result.output
    for part in ("is the cheapest of those", "probabilities", "strongest features", "nearest training prompts", prompt):
        assert part in result.stdout
