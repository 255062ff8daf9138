"""The command with the packaged router, and what it prints and writes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, Group
from typer.testing import CliRunner, Result

from gateway.cli import app
from gateway.commands.reroutingpage import page
from gateway.commands.reroutingscreen import rendered
from gateway.ledger import urls
from gateway.ledger.database import connected, migrate
from gateway.ledger.tables import requests
from router.decision import Query
from router.rerouting import Prompt, Rerouting, compare
from tests.fakes.encoders import told_router
from tests.fakes.fleets import fleet
from tests.fakes.ledgers import row

CODE, POEM = (
    "Fix the bug in this Python function: def f(x) return x",
    "Write a cheerful birthday poem for my grandmother",
)
HOSTILE = "<script>alert(1)</script>[red]\x1b[31m\u202e"
CODER: dict[str, Any] = {"domains": ["code"], "price": {"input": 1, "output": 1}}
GENERAL: dict[str, Any] = {"domains": ["general"], "price": {"input": 0.1, "output": 0.1}}


def experts_yaml(*names: str) -> str:
    """Experts that each serve the domain of their name."""
    lines = ["version: 1", "experts:"]
    upstream = "{vllm: [http://127.0.0.1:1/v1]}"
    price = "{input: 1, output: 1}"
    lines += [f"  the-{n}: {{model: m, domains: [{n}], upstream: {upstream}, price: {price}}}" for n in names]
    return "\n".join(lines) + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a file as it is, one as it would be without a coder, and prompts."""
    (tmp_path / "old.yaml").write_text(experts_yaml("code", "general"), "utf-8")
    (tmp_path / "new.yaml").write_text(experts_yaml("general"), "utf-8")
    prompts = [{"id": "bug", "prompt": CODE}, {"id": "poem", "prompt": POEM}]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts), "utf-8")
    return tmp_path


def run(folder: Path, *arguments: str, prompts: str = "prompts.jsonl") -> Result:
    source = prompts if prompts in ("ledger", "-") else str(folder / prompts)
    files = [
        "--config",
        str(folder / "new.yaml"),
        "--against",
        str(folder / "old.yaml"),
        "--state",
        str(folder / "state"),
    ]
    environment = {"MOE_GATEWAY_LEDGER": None, "MOE_GATEWAY_STATE": None, "MOE_GATEWAY_CONFIG": None}
    return CliRunner().invoke(app, ["diff-routing", *files, "--prompts", source, *arguments], env=environment)


def test_what_moves_is_told_as_json_and_as_a_page_and_nothing_else_is_written(folder: Path) -> None:
    with (folder / "prompts.jsonl").open("a", encoding="utf-8") as file:
        file.write("{\n" * 7)
    result = run(folder, "--json", "--html", str(folder / "diff.html"), "--fail-over", "49.9")
    assert result.exit_code == 1
    assert "50.0 % of the prompts go elsewhere, more than --fail-over 49.9" in result.stderr
    assert "prompts.jsonl:3: not valid JSON" in result.stderr
    assert "2 more lines cannot be used" in result.stderr
    document = json.loads(result.stdout)
    assert (document["old"], document["new"], document["unusable_lines"]) == ("old.yaml", "new.yaml", 7)
    assert (document["prompts"], document["moved"], document["share"]) == (2, 1, 0.5)
    (moved,) = document["routes"]
    assert (moved["id"], moved["old"]["expert"], moved["new"]["expert"]) == ("bug", "the-code", "the-general")
    assert document["quality"]["change"] < 0
    assert "the-code → the-general" in (folder / "diff.html").read_text("utf-8")
    assert not (folder / "state").exists()


def test_recorded_traffic_is_asked_about(folder: Path) -> None:
    nothing = run(folder, prompts="ledger")
    assert (nothing.exit_code, "there is no ledger at" in nothing.stderr) == (1, True)
    (folder / "state").mkdir()
    engine = connected(urls.in_file(folder / "state" / "ledger.db"))
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(requests.insert(), [row(1, at=datetime.now(UTC))])
    assert "they are recorded where serve has --ledger-prompts" in run(folder, prompts="ledger").stderr
    with engine.begin() as connection:
        connection.execute(requests.insert(), [row(2, at=datetime.now(UTC), prompt=CODE)])
    engine.dispose()
    found = run(folder, "--fail-over", "100", prompts="ledger")
    assert found.exit_code == 0, found.output
    assert "1 of 1 prompts goes elsewhere (100.0 %)   old.yaml → new.yaml" in found.stdout
    assert "#req-2  the-code → the-general" in found.stdout
    assert "$0.0150 → $0.0150" in found.stdout  # 15 tokens, as measured, a thousand times


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("--model", "autor"), 2, "one of auto, auto:cheap, auto:best"),
        (("--fail-over", "101"), 2, "'--fail-over'"),
        (("--since", "yesterday"), 2, "since is not 'yesterday'"),
        (("--ledger", "mysql://x"), 2, "--ledger takes"),
    ],
)
def test_what_is_called_wrongly_is_told(folder: Path, arguments: tuple[str, ...], status: int, told: str) -> None:
    source = "ledger" if arguments[0] in ("--since", "--ledger") else "prompts.jsonl"
    result = run(folder, *arguments, prompts=source)
    assert (result.exit_code, told in result.stderr) == (status, True)


def test_a_file_without_a_prompt_is_status_1(folder: Path) -> None:
    (folder / "empty.jsonl").write_text("\n", "utf-8")
    result = run(folder, prompts="empty.jsonl")
    assert result.exit_code == 1
    assert 'empty.jsonl: there is no prompt in it; a line is {"prompt": …} or {"messages": […]}' in result.stderr


# What is printed and written


def hostile(*more: str) -> Rerouting:
    """A change under which code that is hostile goes elsewhere, and a prompt that nobody takes any more."""
    old = told_router(fleet({"coder": CODER, "general": GENERAL}))
    new = told_router(
        fleet(
            {
                "coder": {**CODER, "model": "<b>m2</b>", "context_window": 2000},
                "general": {**GENERAL, "price": None, "context_window": 2000},
            }
        )
    )
    texts = (f"code=1 {HOSTILE}", "general=1", *more)
    long = Prompt(Query("general=1", tokens=90_000, least_tokens=40_000), "long")
    return compare(old, new, [long, *(Prompt(Query(text, tokens=100), HOSTILE) for text in texts)])


def printed(found: Rerouting, width: int = 80) -> str:
    console = Console(width=width, record=True, file=None, force_terminal=False)
    with console.capture() as capture:
        console.print(Group(*rendered(found, "old.yaml", "new.yaml")), highlight=False)
    return capture.get()


def test_the_screen_shows_the_flows_and_who_answers_nothing_any_more() -> None:
    said = printed(hostile(), width=160)
    assert "2 of 3 prompts go elsewhere (66.7 %)   old.yaml → new.yaml" in said
    assert "1 of them nobody would answer any more" in said
    assert "general    nobody" in said
    assert "at least 40000 tokens long" in said
    assert said.index("nobody would") < said.index("coder (m)")


def test_no_prompt_reaches_the_terminal_as_more_than_text() -> None:
    said = printed(hostile())
    assert "\x1b" not in said
    assert "\u202e" not in said
    assert "[red]" in said


def test_no_line_is_wider_than_the_terminal() -> None:
    said = printed(hostile("code=1 " + "long words " * 99), width=80)
    assert max(map(len, said.splitlines())) <= 80


def test_nothing_that_moves_is_one_sentence_and_the_totals() -> None:
    router = told_router(fleet({"coder": CODER, "general": GENERAL}))
    said = printed(compare(router, router, [Prompt(Query("code=1"))]))
    assert said.startswith("none of 1 prompts goes elsewhere")
    assert "surprising" not in said


def test_the_page_escapes_what_was_asked_and_loads_nothing() -> None:
    written = page(hostile(), "<old>", "new.yaml")
    assert "<script" not in written
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in written
    assert "<b>" not in written
    assert "\x1b" not in written
    assert "default-src 'none'" in written
    assert "http" not in written.replace("http-equiv", "")


def test_the_page_says_what_the_figures_rest_on() -> None:
    written = page(hostile(), "old.yaml", "new.yaml")
    assert "an answer of 512 tokens" in written
    assert "for 1 of 3 prompts" in written
    assert "nobody answers any more" in written
