from __future__ import annotations

import json
import os
import re
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app, main
from gateway.commands.editing import edited
from gateway.commands.effect import Effect, show
from gateway.history import History
from router.experts import load_experts
from router.rerouting import Landing, Prompt, Rerouting, Route
from router.yamlfile import YamlFile
from tests.fakes.pages import pages
from tests.fakes.terminal import terminal
from tests.fakes.upstream import PATIENCE, FakeServer, chunk, fake_server, status, streams
from tests.integration.conftest import Start, artifact, experts_yaml, servers, start

__all__ = ["artifact", "servers", "start"]  # fixtures

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


def refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str | Path, status: int = 1
) -> str:
    """What is told on standard error with that exit status."""
    monkeypatch.setattr("sys.argv", ["moe-gateway", "experts", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == status
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
    assert "goes with general: a fallback of coder" in told
    assert "goes with general: router.fallback" in told
    assert "--force takes that out, too" in told
    assert "it has general, coder" in refused(capsys, monkeypatch, "remove", "nobody", "--config", config)
    assert config.read_text("utf-8") == whole
    assert run("remove", "coder", "--config", config).stdout == f"coder: removed from {config}\n"
    assert config.read_text("utf-8") == FILE


REFERRED = """\
version: 1
experts:
  general: {model: m, domains: [general], upstream: {vllm: ["http://h/v1"]}, fallbacks: [lawyer]}   # the last resort
  coder:
    model: m
    domains: [code]
    upstream: {vllm: ["http://h/v1"]}
    fallbacks:
      - lawyer   # odd
      - general  # better
  # Of law.
  lawyer:
    model: m
    domains: {legal: 0.9, tax: 0.8}
    upstream: {vllm: ["http://h/v1"]}
router: {fallback: lawyer, confidence_floor: 0.5}
aliases: {law: lawyer, all: auto}
domains:
  tax:
    examples: &five [a, b, c, d, e]
  legal:
    examples: *five   # the same
"""


def test_with_force_all_that_refers_to_an_expert_goes_too(config: Path) -> None:
    config.write_text(REFERRED)
    result = run("remove", "lawyer", "--force", "--config", config)
    assert result.exit_code == 0, result.output
    assert (
        config.read_text()
        == """\
version: 1
experts:
  general: {model: m, domains: [general], upstream: {vllm: ["http://h/v1"]}}   # the last resort
  coder:
    model: m
    domains: [code]
    upstream: {vllm: ["http://h/v1"]}
    fallbacks:
      - general  # better
  # Of law.
router: {confidence_floor: 0.5}
aliases: {all: auto}
"""
    )
    assert "goes with lawyer: the domain legal and its 5 examples" in result.stdout
    assert "general answers when the router is unsure" in result.stdout
    kept = History(config.parent / ".moe-gateway" / "history").entries()[0]
    assert (kept.why, kept.texts["experts.yaml"]) == ("kept", REFERRED)


def test_a_dry_run_tells_what_would_go(config: Path) -> None:
    config.write_text(REFERRED)
    told = json.loads(run("remove", "lawyer", "--dry-run", "--json", "--config", config).stdout)
    assert (told["written"], len(told["with_it"])) == (False, 6)
    assert config.read_text() == REFERRED
    assert not (config.parent / ".moe-gateway").exists()


def test_who_answers_with_anothers_worker_is_told(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("add", CODER, "--id", "coder", "--config", config)
    adapter = (
        "  rust:\n    model: r\n    domains: [code]\n    upstream: {worker: coder, adapter: {name: r, path: /r}}\n"
    )
    config.write_text(config.read_text().replace("\naliases", f"\n{adapter}\naliases"))
    told = refused(capsys, monkeypatch, "remove", "coder", "--force", "--config", config)
    assert "rust answer with the worker of coder" in told


def test_what_an_extended_file_has_is_not_taken_out_here(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("add", CODER, "--id", "coder", "--config", config)
    config.rename(config.parent / "base.yaml")
    config.write_text("extends: base.yaml\nexperts:\n  coder:\n    max_in_flight: 4\n  other:\n    model: m\n"
                      "    domains: [code]\n    upstream: {vllm: ['http://h/v1']}\n")  # fmt: skip
    told = refused(capsys, monkeypatch, "remove", "coder", "--config", config)
    assert "coder stands in a file that" in told
    assert run("remove", "other", "--config", config).exit_code == 0
    assert list(load_experts(config).experts) == ["general", "coder"]


CARDS: list[dict[str, object]] = [
    {"id": "Qwen/Qwen2.5-Coder-7B-Instruct", "owned_by": "vllm", "max_model_len": 16384},
    {"id": "tax-lora", "owned_by": "vllm", "parent": "Qwen/Qwen2.5-Coder-7B-Instruct"},
    {"id": "org/legal-8b", "owned_by": "vllm", "max_model_len": 8192},
]
LEGAL = 'Is a verbal contract enforceable?\ncan he keep my deposit\n\nfired while sick\nDraft an NDA, ${party}.\nmy "will"\n'


def models(*cards: dict[str, object], key: str | None = None) -> AbstractContextManager[str]:
    return pages({"/v1/models": json.dumps({"object": "list", "data": cards})}, key)


def test_a_server_is_asked_what_it_has(config: Path) -> None:
    with models(CARDS[0]) as url:
        assert run("add", "--url", url, "--config", config).exit_code == 0
    expert = load_experts(config).experts["qwen2.5-coder-7b-instruct"]
    assert expert.model == "Qwen/Qwen2.5-Coder-7B-Instruct"
    assert (expert.context_window, list(expert.domains)) == (16384, ["code"])
    assert expert.upstream.vllm[0].url == f"{url}/v1"
    assert "tools" in expert.capabilities


def test_a_name_that_a_server_made_up_moves_no_terminal(config: Path) -> None:
    with models({"id": "org/\x1b[31mred\x07", "owned_by": "vllm"}) as url:
        asked = ("--url", url, "--id", "red", "--domain", "general=0.5", "--config", config)
        added, listed = run("add", *asked), run("list", "--config", config)
        live = CliRunner().invoke(app, ["check", str(config), "--live", "--timeout", "1"])
    assert added.exit_code == 0
    for output in (added.output, listed.output, live.output):
        assert r"\x1b[31mred" in output
        assert not {"\x1b", "\x07"} & set(output)


def test_of_several_models_one_has_to_be_named_and_may_be_an_adapter(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVER_KEY", "the-key")
    asked = ("add", "--domain", "code=0.7", "--config", config, "--api-key", "SERVER_KEY")
    with models(*CARDS, key="the-key") as url:
        assert run(*asked, "--url", url).exit_code == 2
        assert "it has Qwen/" in refused(capsys, monkeypatch, *asked, "--url", url, "--model", "other")
        assert run(*asked, "--url", url, "--model", "tax-lora").exit_code == 0
    expert = load_experts(config).experts["tax-lora"]
    assert (expert.model, expert.upstream_model) == ("Qwen/Qwen2.5-Coder-7B-Instruct", "tax-lora")
    assert (expert.upstream.api_key, expert.context_window) == ("the-key", 16384)
    assert "the-key" not in config.read_text()


@pytest.mark.parametrize("body", ["", "[]", '{"data": [{"id": 5}]}', '{"object": "list", "data": []}', "[" * 100_000])
def test_a_server_that_does_not_tell_its_models_is_told(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    with pages({"/v1/models": body}) as url:
        assert "list of models" in refused(capsys, monkeypatch, "add", "--url", url, "--config", config)
    assert config.read_text() == FILE


def test_a_key_that_is_lacking_and_a_server_that_is_not_there_are_told(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("add", "--config", config, "--url")
    with models(CARDS[0], key="k") as url:
        assert "name its variable with --api-key" in refused(capsys, monkeypatch, *asked, url)
        monkeypatch.setenv("WRONG", "w")
        assert "it refuses the key in WRONG" in refused(capsys, monkeypatch, *asked, url, "--api-key", "WRONG")
        assert "UNSET is not set" in refused(capsys, monkeypatch, *asked, url, "--api-key", "UNSET")
    assert "it could not be reached" in refused(capsys, monkeypatch, *asked, url)


def test_a_new_domain_comes_with_its_examples_and_both_go_to_the_byte(config: Path) -> None:
    (config.parent / "legal.txt").write_text(LEGAL)
    with models(CARDS[2]) as url:
        asked = ("add", "--url", url, "--domain", "legal=0.9", "--config", config)
        assert run(*asked).exit_code == 2
        assert config.read_text() == FILE
        result = run(*asked, "--examples", config.parent / "legal.txt", "--description", "law")
    assert result.exit_code == 0, result.output
    shown = YamlFile.parse(result.stdout.partition("\n\n")[0], "shown").data  # it can be pasted
    assert shown["experts"]["legal-8b"]["domains"] == {"legal": 0.9}
    assert len(shown["domains"]["legal"]["examples"]) == 5
    assert "the catalogue does not know org/legal-8b" in result.stderr
    file = load_experts(config)
    assert file.experts["legal-8b"].domains == {"legal": 0.9}
    assert file.domains["legal"].description == "law"
    assert file.domains["legal"].examples == tuple(filter(None, LEGAL.splitlines()))
    assert run("remove", "legal-8b", "--force", "--config", config).exit_code == 0
    assert config.read_text() == FILE


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (("--domain", "legal=2"), "a quality from 0 to 1"),
        (("--domain", "=0.5"), "a quality from 0 to 1"),
        (("--domain", "code", "--examples", "legal.txt"), "--examples are for one new domain"),
        (("--domain", "legal"), "the domain 'legal' is new"),
    ],
)
def test_domains_that_cannot_be_are_told(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, said: tuple[str, ...], told: str
) -> None:
    monkeypatch.chdir(config.parent)
    (config.parent / "legal.txt").write_text(LEGAL)
    assert told in refused(capsys, monkeypatch, "add", CODER, *said, "--config", config, status=2)
    assert config.read_text() == FILE


def test_without_a_terminal_something_has_to_be_named(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "on a terminal it asks" in refused(capsys, monkeypatch, "add", "--config", config, status=2)


def test_what_changed_meanwhile_is_not_overwritten(config: Path) -> None:
    edit = edited(config, lambda text: text + "# ours\n")
    config.write_text(FILE + "# theirs\n")
    with pytest.raises(SystemExit):
        edit.write()
    assert config.read_text() == FILE + "# theirs\n"


def test_a_byte_order_mark_stays(config: Path) -> None:
    config.write_bytes(b"\xef\xbb\xbf" + FILE.encode())
    assert run("add", CODER, "--config", config).exit_code == 0
    assert config.read_bytes().startswith(b"\xef\xbb\xbfversion")
    assert run("remove", CODER, "--config", config).exit_code == 0
    assert config.read_bytes() == b"\xef\xbb\xbf" + FILE.encode()


def test_on_a_terminal_it_asks_for_all(config: Path) -> None:
    """From an address to a new domain, with prompts of the corpus and of one's own, to the file that is written."""
    with (
        models(*CARDS) as url,
        terminal("experts", "add", "--no-effect", "--config", str(config), term="dumb") as screen,
    ):
        for question, answer in (
            ("a number of the list", "coder"),
            ("qwen2.5-coder-7b-instruct(.|\n)*a number of the list", url),
            ("Which model, by number or name", "3"),
            ("expert's id", "general"),
            ("there is general already", "lawyer"),
            ("how good from 0 to 1", "Legal=2"),
            ("not 'Legal=2'(.|\n)*how good from 0 to 1", "legal=0.9"),
            ("What it is about", "law: contracts, tenancy, courts"),
            ("Which to take", "1,3-5"),
            ("A file of prompts", ""),
            ("an empty line ends", "can my landlord keep my deposit"),
            (">", ""),
            ("Write it to", "y"),
        ):
            assert screen.until(question, 100), screen.seen[-2000:]
            screen.press(f"{answer}\r")
        assert screen.until("lawyer: written to")
        assert screen.process.wait(PATIENCE) == 0
    file = load_experts(config)
    assert file.experts["lawyer"].model == "org/legal-8b"
    assert file.domains["legal"].examples[-1] == "can my landlord keep my deposit"
    assert len(file.domains["legal"].examples) == 5
    assert config.read_text().startswith(FILE.rpartition("\naliases")[0])


def test_on_a_terminal_no_is_no(config: Path) -> None:
    with terminal("experts", "add", CODER, "--no-effect", "--config", str(config)) as screen:
        for question, answer in (("expert's id", ""), ("how good", ""), ("Write it to", "n")):
            assert screen.until(question, 100), screen.seen[-2000:]
            screen.press(f"{answer}\r")
        assert screen.process.wait(PATIENCE) == 1
    assert config.read_text() == FILE


def test_the_effect_on_routing_is_predicted(config: Path) -> None:
    """An expert that is better at code takes what is about code, and little else."""
    asked = ("add", CODER, "--domain", "code=0.95", "--effect", "--dry-run", "--config", config)
    effect = json.loads(run(*asked, "--json").stdout)["effect"]
    assert effect["to_it"]["code"] > 0.8 * 192 / 4
    assert effect["from"] == {"general": sum(effect["to_it"].values())}
    assert effect["quality"]["after"] > effect["quality"]["before"]


def test_an_effect_is_told_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    general, lawyer = Landing("general", "best", quality=0.6, cost=0.001), Landing("x", "best", quality=0.9, cost=0.002)
    stays, moves = (Route(Prompt.of("a"), general, general), Route(Prompt.of("b"), general, lawyer))
    show(Effect("x", Rerouting((stays, stays, moves)), ["code", "bio", "bio"], Rerouting((stays, moves))))
    assert capsys.readouterr().out.splitlines() == [
        "Predicted effect",
        "  Of the 2 example prompts that it learned from, 1 go to it",
        "  1 of the router's own 3 prompts go to it: bio 1",
        "    1 that general answers now",
        "  expected quality 0.600 → 0.700",
        "  USD a prompt 0.001000 → 0.001333",
    ]
    show(Effect("x", Rerouting((stays,)), ["code"], Rerouting(())))
    assert "others are expected to be at least as good" in capsys.readouterr().out


def test_one_prompt_is_put_to_an_expert_with_its_defaults(config: Path) -> None:
    with fake_server() as server:
        config.write_text(
            f"version: 1\nexperts:\n  a:\n    model: m\n    domains: [code]\n    upstream: {{vllm: [{server.url}]}}\n"
            "    defaults: {system: Be brief.}\n    price: {input: 1000000, output: 1000000}\n"
        )
        result = run("test", "a", "Hello?", "--config", config)
        told = json.loads(run("test", "a", "--max-tokens", "7", "--json", "--config", config).stdout)
        server.behaviour = status(500)
        failed = run("test", "a", "--config", config)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Hello wörld\n")
    assert re.search(r"first token +\d+\.\d{3} s\ntotal +\d", result.stdout)
    assert re.search(r"tokens +11 in, 4 out\ncost +15\.000000 USD", result.stdout)
    assert [message["role"] for message in server.requests[0]["messages"]] == ["system", "user"]
    assert server.requests[0]["model"] == "m"
    assert server.requests[1]["max_tokens"] == 7
    assert (told["ok"], told["text"], told["expert"], told["output_tokens"]) == (True, "Hello wörld", "a", 4)
    assert failed.exit_code == 1
    assert "error: a: refused with 500" in failed.stderr


def test_a_stream_is_shown_without_what_moves_a_terminal(config: Path) -> None:
    with fake_server(
        streams(chunk({"reasoning_content": "hm"}), chunk({"content": "a\x1b[2Jb"}), chunk({}, "stop"))
    ) as server:
        config.write_text(
            f"version: 1\nexperts:\n  a:\n    model: m\n    domains: [code]\n    upstream: {{vllm: [{server.url}]}}\n"
        )
        result = run("test", "a", "--config", config)
    assert result.stdout.startswith("hma�[2Jb\n")
    assert "not known: it has no token price" in result.stdout


def test_it_is_asked_through_a_running_gateway_too(start: Start, servers: list[FakeServer], config: Path) -> None:
    gateway = start(experts_yaml(servers[0]))
    config.write_text(experts_yaml(servers[0]))
    told = json.loads(run("test", "auto", "Hello?", "--url", gateway.url, "--json", "--config", config).stdout)
    assert (told["expert"], told["model"], told["text"]) == ("one", "model-one", "Hello wörld")
    assert told["reason"]


def test_a_stand_in_is_started_to_be_asked(config: Path) -> None:
    config.write_text("version: 1\nexperts:\n  a: {model: m, domains: [code], upstream: {embedded: smollm2}}\n")
    told = json.loads(run("test", "a", "Hi", "--max-tokens", "2", "--json", "--config", config).stdout)
    assert (told["ok"], told["finish"], told["output_tokens"]) == (True, "length", 2)


def test_nobody_runs_a_worker_is_told(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("add", CODER, "--id", "coder", "--config", config)
    told = refused(capsys, monkeypatch, "test", "coder", "--config", config)
    assert "nobody runs the worker of coder: start moe-gateway workers up" in told
    assert "it has general, coder" in refused(capsys, monkeypatch, "test", "codr", "--config", config)


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
