"""moe-gateway compare."""

from __future__ import annotations

import asyncio
import datetime
import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from gateway.commands.gatewayurl import KEY, gateway_address
from gateway.commands.shared import DEFAULT_CONFIG, Config, Json, read_config
from gateway.console import err, fail, out, print_json, shown_progress
from router.experts import VIRTUAL_MODELS, ExpertsFile

if TYPE_CHECKING:
    from gateway.comparing.answers import Sampling
    from gateway.comparing.journal import Journal
    from gateway.comparing.prompts import Prompt
    from gateway.comparing.summary import Answers
    from gateway.upstreams.base import Address

LEAST_GRADED = 10


def compare(
    prompts: Annotated[
        Path, typer.Option("--prompts", help="JSON lines with prompt or messages; expected, regex or test to grade by.")
    ],
    experts: Annotated[str, typer.Option("--experts", help="Whom to ask, such as coder,general,auto.")],
    config: Config = DEFAULT_CONFIG,
    url: Annotated[
        str, typer.Option("--url", envvar="MOE_GATEWAY_URL", help=f"The running gateway; its key is read from {KEY}.")
    ] = "http://127.0.0.1:8080/v1",
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where it goes: this name with .json, .html and .jsonl behind it.")
    ] = Path("compare"),
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", min=1, help="Of each answer.")] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", min=0, max=2)] = None,
    at_once: Annotated[int, typer.Option("--at-once", min=1, max=256, help="Prompts at a time, of each expert.")] = 1,
    seconds: Annotated[float, typer.Option("--timeout", min=1, help="Seconds that an answer may take.")] = 600,
    run_tests: Annotated[
        bool, typer.Option("--run-tests", help="Run the prompts' test commands: they run what the models wrote.")
    ] = False,
    test_seconds: Annotated[float, typer.Option("--test-timeout", min=1, help="Seconds that a test may take.")] = 10,
    write_quality: Annotated[
        bool, typer.Option("--write-quality", help="Put the share of right answers into experts.yaml, by domain.")
    ] = False,
    least: Annotated[
        int, typer.Option("--least", min=1, help="Graded answers that a written quality rests on.")
    ] = LEAST_GRADED,
    fresh: Annotated[bool, typer.Option("--fresh", help="Ask everything anew.")] = False,
    as_json: Json = False,
) -> None:
    """Put the same prompts to several experts and set their answers side by side.

    A run that broke off goes on where it stopped. Exit status 1 where an answer failed.

    Example: moe-gateway compare --prompts prompts.jsonl --experts coder,general,auto
    Example: moe-gateway compare --prompts graded.jsonl --experts coder,general --run-tests --write-quality
    """
    from gateway.comparing.answers import Sampling
    from gateway.comparing.prompts import read_prompts

    file = read_config(config)
    targets = _targets(experts, file)
    asked = read_prompts(prompts)
    if write_quality:
        _check_domains(asked, file)
    sampling = Sampling(max_tokens, temperature)
    with _journal(output, fresh) as journal:
        answers = _answers(
            journal,
            asked,
            list(targets),
            sampling,
            file,
            gateway_address(url, KEY),
            at_once,
            seconds,
            run_tests,
            test_seconds,
        )
    document = _document(asked, targets, answers, sampling)
    _write(output, document, prompts.name)
    print_json(document["targets"]) if as_json else _print(document, output)
    if not run_tests and any(answer.why and answer.grade is None for answer in answers.values()):
        err.print("warning: prompts with a test are not graded without --run-tests", style="yellow", soft_wrap=True)
    if write_quality:
        _write_quality(config, document, targets, least)
    if any(answer.error for answer in answers.values()):
        raise typer.Exit(1)


def _targets(experts: str, file: ExpertsFile) -> dict[str, str | None]:
    """What is asked for, and the one expert that it means, None where the router chooses. Leaves with 2 on an unknown name."""
    names = list(dict.fromkeys(filter(None, map(str.strip, experts.split(",")))))
    known = [*file.experts, *file.aliases, *VIRTUAL_MODELS]
    for name in names:
        if name not in known and not name.startswith("auto:"):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            fail(f"--experts: there is no {name!r}; {hint}", 2)
    if not names:
        fail("--experts: name one or more, such as coder,general,auto", 2)
    meant = {name: file.aliases.get(name, name) for name in names}
    return {name: target if target in file.experts else None for name, target in meant.items()}


def _check_domains(prompts: Sequence[Prompt], file: ExpertsFile) -> None:
    graded = [prompt for prompt in prompts if prompt.graded]
    if not graded:
        fail("--write-quality needs graded prompts: give them expected, regex or test", 2)
    unknown = sorted({prompt.domain for prompt in graded} - {*file.domain_names})
    if unknown:
        names = ", ".join(repr(name) for name in unknown)
        fail(f"--write-quality: no domain {names}; graded prompts need one of {', '.join(file.domain_names)}", 2)


def _journal(output: Path, fresh: bool) -> Journal:
    from gateway.comparing.journal import Journal

    return Journal(_beside(output, ".jsonl"), fresh)


def _beside(output: Path, ending: str) -> Path:
    return output.with_name(output.name + ending)


def _answers(
    journal: Journal,
    prompts: Sequence[Prompt],
    targets: Sequence[str],
    sampling: Sampling,
    file: ExpertsFile,
    gateway: Address,
    at_once: int,
    seconds: float,
    tests: bool,
    test_seconds: float,
) -> Answers:
    from gateway.comparing.asking import Asker
    from gateway.comparing.run import Run
    from gateway.upstreams.openai import OpenAIUpstream

    known = len(journal.known)
    if known:
        err.print(f"{known} answers are in {journal.path} already and are not asked for again", highlight=False)

    async def run() -> Answers:
        upstream = OpenAIUpstream()
        await upstream.start()
        try:
            if await upstream.fetch(gateway, "/health") is None:
                fail(f"no gateway answers at {gateway.url}; start one with moe-gateway serve, or name it with --url")
            asker = Asker(upstream, gateway, file.experts, sampling, seconds)
            with shown_progress() as progress:
                return await Run(journal, at_once, tests, test_seconds).answers(
                    asker, prompts, targets, sampling, progress
                )
        finally:
            await upstream.close()

    try:
        return asyncio.run(run())
    except KeyboardInterrupt:
        fail(
            f"stopped; {len(journal.known)} answers are kept in {journal.path}, and the same command goes on from there"
        )


def _document(
    prompts: Sequence[Prompt], targets: Mapping[str, str | None], answers: Answers, sampling: Sampling
) -> dict[str, Any]:
    from gateway.comparing.summary import document

    when = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return document(prompts, targets, answers, sampling, when)


def _write(output: Path, document: Mapping[str, Any], source: str) -> None:
    from gateway.comparing.page import page

    text = json.dumps(document, indent=1, ensure_ascii=False)
    _beside(output, ".json").write_text(text.encode("utf-8", "backslashreplace").decode() + "\n", "utf-8")
    _beside(output, ".html").write_text(page(document, source), "utf-8")


def _print(document: Mapping[str, Any], output: Path) -> None:
    from gateway.comparing.page import HEAD, cells_of

    table = Table("asked for", *HEAD, box=None, pad_edge=False)
    for name, figures in document["targets"].items():
        table.add_row(escape(name), *cells_of(figures))
    out.print(table, highlight=False)
    for name, figures in document["targets"].items():
        for why, count in figures["errors"].items():
            err.print(f"{name}: {count} × {why}", style="red", markup=False, highlight=False, soft_wrap=True)
    _print_quality(document["targets"])
    files = ", ".join(str(_beside(output, ending)) for ending in (".json", ".html"))
    out.print(f"\nside by side: {escape(files)}", highlight=False, soft_wrap=True)


def _print_quality(targets: Mapping[str, Any]) -> None:
    domains = list(dict.fromkeys(d for figures in targets.values() for d in figures["quality"] if d != "all"))
    if not domains:
        return
    table = Table("domain", "asked for", "right", "of", "share", "with 95 %", box=None, pad_edge=False)
    for domain in domains:
        for name, figures in targets.items():
            if (quality := figures["quality"].get(domain)) is not None:
                between = f"{quality['low']:.2f}–{quality['high']:.2f}"
                counts = (f"{quality['right']:.0f}", f"{quality['rows']:.0f}")
                table.add_row(escape(domain), escape(name), *counts, f"{quality['mean']:.2f}", between)
    out.print()
    out.print(table, highlight=False)


def _write_quality(config: Path, document: Mapping[str, Any], targets: Mapping[str, str | None], least: int) -> None:
    """Of the experts asked for by name, where enough answers were graded. Raises ConfigError, and then nothing is written."""
    from gateway.replacing import replace_file
    from router.rewriting import with_quality

    text = config.read_bytes().decode()  # line ends stay as they are
    file = read_config(config)
    measured: dict[str, dict[str, float]] = {}
    for name, expert in targets.items():
        if expert is None:
            continue
        for domain, quality in document["targets"][name]["quality"].items():
            if domain == "all":
                continue
            if quality["rows"] < least:
                few = f"{expert}, {domain}: {quality['rows']:.0f} graded answers are too few for a quality"
                err.print(f"warning: {few}; --least says how many", style="yellow", markup=False, soft_wrap=True)
                continue
            measured.setdefault(expert, {})[domain] = quality["mean"]
            was = file.experts[expert].domains.get(domain)
            before = "not named" if was is None else f"{was:g}"
            out.print(f"{expert}: {domain} {before} → {quality['mean']:.2f}", markup=False, highlight=False)
    if not measured:
        fail(f"{config} is as it was: nothing was measured well enough")
    replace_file(config, with_quality(text, measured, config))
    done = f"{config} has them; a running gateway takes them over on SIGHUP or POST /admin/reload"
    out.print(done, markup=False, highlight=False, soft_wrap=True)
