"""The command with the packaged router and authored prompts, and what it prints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, Group
from typer.testing import CliRunner, Result

from gateway.cli import app
from gateway.commands.domains import predicted
from gateway.commands.domainsscreen import rendered
from router.cataloguing.catalog import load_catalog
from router.conversation import clip
from router.dataset import OWN_SET, read_rows
from router.experts import load_experts
from router.rerouting import Prompt, Rerouting, silent
from router.suggesting.effect import pasted
from router.suggesting.matching import Match
from router.suggesting.pool import Pool
from router.suggesting.suggestion import Suggestion
from tests.benchmarks.domain_prompts import prompts_of
from tests.fakes.corpora import small_corpus
from tests.fakes.encoders import told_router

SHIPPED = Path(__file__).parents[3] / "experts.yaml"
LEGAL = prompts_of("legal", "test")
ORDINARY = [row.text for row in read_rows(OWN_SET) if row.part == "plain" and row.domain == "general"]
PRIVATE = "May my landlord jane.doe@example.org terminate the lease?"


def run(folder: Path, prompts: Sequence[str], *arguments: str) -> Result:
    (folder / "experts.yaml").write_bytes(SHIPPED.read_bytes())
    lines = [json.dumps({"prompt": prompt}) + "\n" for prompt in prompts]
    (folder / "prompts.jsonl").write_text("".join(lines), "utf-8")
    files = ["--from", str(folder / "prompts.jsonl"), "--config", str(folder / "experts.yaml")]
    environment = {"MOE_GATEWAY_LEDGER": None, "MOE_GATEWAY_STATE": None, "MOE_GATEWAY_CONFIG": None}
    return CliRunner().invoke(app, ["domains", "suggest", *files, *arguments], env=environment)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the command tells of ordinary prompts and 60 about law, each twice."""
    folder = tmp_path_factory.mktemp("suggest")
    result = run(folder, [*ORDINARY, *LEGAL, *LEGAL, PRIVATE], "--json", "--no-effect")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in folder.iterdir()) == ["experts.yaml", "prompts.jsonl"]
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def test_a_domain_that_nobody_serves_is_found_in_ordinary_traffic(told: dict[str, Any]) -> None:
    (law,) = told["suggestions"]
    assert law["name"] == "law"
    assert 30 <= law["prompts"] <= 60
    assert law["requests"] > 1.8 * law["prompts"]
    assert law["lift"] > 2
    assert 10 <= len(law["examples"]) <= 16
    assert len({*law["examples"]} & {*map(clip, LEGAL)}) >= len(law["examples"]) - 2
    assert PRIVATE not in law["examples"]
    assert told["prompts"] == len(ORDINARY) + 121


def test_its_lines_are_a_file_that_extends_the_other(told: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "experts.yaml").write_bytes(SHIPPED.read_bytes())
    (tmp_path / "new.yaml").write_text(f"version: 1\nextends: experts.yaml\n{told['yaml']}", "utf-8")
    file = load_experts(tmp_path / "new.yaml")
    assert list(file.domains["law"].examples) == told["suggestions"][0]["examples"]
    assert file.experts["law"].fallbacks == ("general",)


def test_what_it_would_do_is_predicted_with_a_router_that_is_trained_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.dataset.load_corpus", small_corpus)  # the whole one takes ten seconds
    kilns = tuple(f"At what temperature does a pottery kiln melt glaze number {i}?" for i in range(12))
    one = suggestion(examples=kilns[:8])
    prompts = [
        Prompt.of(text) for text in (*kilns, "Prove a theorem about primes", "Fix the loop in my Python function")
    ]
    effect = predicted(told_router(load_experts(SHIPPED)), [one], prompts, tmp_path, silent)
    assert effect is not None
    assert effect.counts()["pottery"] == (0, 12)
    assert "12 prompts would go to it: 12 from general" in printed(pool(), one, effect=effect)
    assert predicted(told_router(load_experts(SHIPPED)), [], prompts, tmp_path, silent) is None


def test_of_ordinary_traffic_nothing_is_proposed_and_nothing_is_trained(tmp_path: Path) -> None:
    result = run(tmp_path, ORDINARY)
    assert result.exit_code == 0, result.output
    assert "no domain is proposed: no 10 texts or more are about one thing" in " ".join(result.stdout.split())
    assert "fitting" not in result.stderr
    assert "domains:" not in result.stdout


# What is printed


def pool(**changes: Any) -> Pool:
    about = {"texts": ("a",) * 40, "counts": (1,) * 40, "vectors": None, "domains": (), "languages": (), "prompts": 90}
    return Pool(**{**about, "unanswered": 50, "unread": {}, "noise": 0, "left_out": 0, **changes})


def suggestion(**changes: Any) -> Suggestion:
    model = load_catalog().models["qwen2.5-coder-7b-instruct"]
    about = {
        "name": "pottery",
        "terms": ("kiln", "glaze"),
        "members": tuple(range(20)),
        "examples": ("[red]How hot\x1b[31m is \u202ea kiln?", *(f"question {i}" for i in range(9))),
        "requests": 33,
        "lift": 4.25,
        "languages": {"en": 18, "de": 2},
        "expert": "pottery",
        "match": Match("qwen2.5-coder-7b-instruct", model, None, "no model is made for this"),
        "fallback": "general",
    }
    return Suggestion(**{**about, **changes})


def printed(pool: Pool, *found: Suggestion, effect: Rerouting | None = None) -> str:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(Group(*rendered(pool, found, effect, "experts.yaml")), highlight=False)
    return capture.get()


def test_a_proposal_is_told_and_no_prompt_reaches_the_terminal_as_more_than_text() -> None:
    said = printed(pool(), suggestion())
    assert "90 prompts; no specialist answers 50 of them (55.6 %), 40 different texts" in said
    assert "pottery   20 texts, 33 requests, 4.2 times as frequent as in the corpus" in said
    assert "kiln, glaze" in said
    assert "en 18, de 2" in said
    assert "[red]How hot" in said
    assert "\x1b" not in said
    assert "\u202e" not in said
    assert max(map(len, said.splitlines())) <= 80


def test_what_is_left_aside_is_told() -> None:
    said = " ".join(printed(pool(noise=3, unread={"fi": 2, "": 1}, left_out=7)).split())
    assert "3 of those are no text that could be judged" in said
    assert "3 are in languages that the router cannot read (fi 2, unknown 1)" in said
    assert "7 older texts were left out" in said
    assert "30 different texts are the least" in " ".join(printed(pool(texts=("a",))).split())


def test_that_no_model_is_small_enough_is_told_and_leaves_a_place_for_one() -> None:
    one = suggestion(match=None)
    assert "none of the catalogue is as small as --max-gb says" in printed(pool(), one)
    assert "your-org/your-model" in pasted(SHIPPED.read_text("utf-8"), [one])
