"""moe-gateway experts add."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from gateway.commands.adding import Addition, NewDomain, read_examples, read_qualities
from gateway.commands.shared import DEFAULT_CONFIG, Config, Json, State, read_config, state_folder
from gateway.console import err, fail, out, print_json

if TYPE_CHECKING:
    from router.cataloguing.draft import Draft
    from router.cataloguing.fitting import Fit
    from router.cataloguing.words import Precision
    from router.experts import ExpertsFile


@dataclass(frozen=True)
class Found:
    """A draft, how vLLM is started for it where that is known, and what is worth telling of it."""

    draft: Draft
    command: tuple[str, ...] = ()
    facts: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()


def add(
    name: Annotated[str | None, typer.Argument(help="A model of the catalogue: its key or hub id.")] = None,
    expert: Annotated[str | None, typer.Option("--id", help="The expert's id; the model's name if not given.")] = None,
    gpu_memory: Annotated[float, typer.Option(metavar="GB", min=1, max=10_000, help="GB of one GPU.")] = 24.0,
    gpus: Annotated[int, typer.Option(min=1, max=64, help="GPUs that it may be split among.")] = 1,
    url: Annotated[
        str | None,
        typer.Option(
            help="A server that has it: asked for its models where none is named. Else the gateway launches one."
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Which of the models that the server has.")] = None,
    api_key: Annotated[
        str | None, typer.Option(metavar="NAME", help="The environment variable that holds the server's key.")
    ] = None,
    quantised: Annotated[
        str | None,
        typer.Option(
            "--quantised",
            "--quantized",
            metavar="HUB-ID",
            help="A copy to serve in its place: fp8 where its name says so, else 4 bits.",
        ),
    ] = None,
    domain: Annotated[
        list[str] | None, typer.Option(metavar="NAME=QUALITY", help="What it is good at, 0 to 1; may be given again.")
    ] = None,
    description: Annotated[str, typer.Option(help="What a new domain is about.")] = "",
    examples: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Prompts of a new domain: one a line, or .jsonl with prompt.")
    ] = None,
    propose: Annotated[bool, typer.Option("--propose", help="Take prompts of the router's own corpus too.")] = False,
    effect: Annotated[
        bool | None,
        typer.Option("--effect/--no-effect", help="Predict which prompts go to it. [default: on a terminal]"),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: Config = DEFAULT_CONFIG,
    state: State = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the entry and write nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Write an expert into an experts file, of which every other byte stays as it is; on a terminal it asks what is not said.

    A model of the catalogue is served in the widest precision that fits: bf16, else fp8, else 4 bits; on as few GPUs and with as
    long a context as do. A domain that the file does not have comes with its example prompts.

    Example: moe-gateway experts add qwen2.5-coder-7b-instruct --id coder2 --gpu-memory 24

    Example: moe-gateway experts add --url http://10.0.0.5:8000 --domain legal=0.9 --examples legal.txt
    """
    from gateway.commands import addquestions
    from gateway.commands.editing import edited
    from router.cataloguing.catalog import load_catalog

    asks = out.is_terminal and sys.stdin.isatty() and not (as_json or yes)
    file = read_config(config)
    if name is None and url is None:
        if not asks:
            fail("name a model of the catalogue, or the address of a server with --url; on a terminal it asks", 2)
        said = addquestions.model_or_address(load_catalog(), gpu_memory, gpus)
        name, url = (None, said) if "://" in said else (said, None)
    if name is not None:
        found = _of_catalogue(name, expert, gpu_memory, gpus, url, quantised, file)
    else:
        found = _of_server(_checked(str(url)), model, expert, api_key, file, asks)
    draft = replace(found.draft, key=api_key) if url else found.draft
    if asks and expert is None:
        draft = replace(draft, expert=addquestions.expert_id(draft.expert))
    if draft.expert in file.experts:
        fail(f"{config} has an expert {draft.expert!r} already; name another with --id")
    qualities = read_qualities(domain) if domain else dict(draft.domains)
    if asks and not domain:
        qualities = read_qualities([addquestions.domains(qualities, file.domain_names)])
    if not qualities:
        fail("nobody knows what it is good at; say so with --domain, such as --domain legal=0.9", 2)
    given = partial(
        _examples, read_examples(examples) if examples else [], propose, asks, file, state_folder(config, state)
    )
    new = [name for name in qualities if name not in file.domain_names]
    if examples and len(new) != 1:
        fail(f"--examples are for one new domain; --domain names {len(new)}", 2)
    addition = Addition(replace(draft, domains=qualities), tuple(given(name, description) for name in new))
    edit = edited(config, lambda text: addition.into(text, config.name))
    if not as_json:
        for line in addition.lines():
            out.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
        out.print()
    predicted = None
    if effect or (effect is None and out.is_terminal):
        from gateway.commands.effect import effect_of, show

        prompts = [prompt for one in addition.domains for prompt in one.examples]
        predicted = effect_of(draft.expert, edit.before, edit.after, prompts, state_folder(config, state))
        if not as_json:
            show(predicted)
    if asks and not dry_run and not typer.confirm(f"\nWrite it to {config}?", default=True):
        fail("nothing was written")
    if not dry_run:
        edit.write()
    if as_json:
        entry = {"id": draft.expert, "written": not dry_run, "entry": addition.lines(), "command": list(found.command)}
        print_json({**entry, **(found.facts or {}), "effect": predicted.described() if predicted else None})
        return
    done = f"would go into {config}" if dry_run else f"written to {config}"
    worker = f"; worker: {shlex.join(found.command)}" if found.command else ""
    out.print(f"{draft.expert}: {done}{worker}", markup=False, highlight=False, soft_wrap=True)
    for note in found.notes:
        err.print(f"note: {note}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def _of_catalogue(
    name: str, expert: str | None, gpu_gb: float, gpus: int, url: str | None, quantised: str | None, file: ExpertsFile
) -> Found:
    """Raises CatalogError."""
    from router.cataloguing.catalog import load_catalog
    from router.cataloguing.experts import arguments_of, fitted
    from router.cataloguing.fitting import fit

    models = load_catalog()
    key = models.find(name)
    fits = fit(models.models[key], gpu_gb, gpus, _precision(quantised))
    draft = fitted(expert or key, fits, file, None if url is None else _with_path(url), quantised)
    command = ("vllm", "serve", quantised or fits.model.name, *arguments_of(fits, quantised))
    return Found(draft, command, _facts(fits), tuple(_notes(fits, quantised)))


def _of_server(
    url: str, model: str | None, expert: str | None, api_key: str | None, file: ExpertsFile, asks: bool
) -> Found:
    """Leaves with status 1 where the server does not tell its models, 2 where one of several has to be named."""
    from gateway.commands.addquestions import served_model
    from gateway.commands.servermodels import models_at
    from gateway.listing import names
    from router.cataloguing.catalog import load_catalog
    from router.cataloguing.experts import id_for, served
    from router.errors import CatalogError

    listing = models_at(url, api_key)
    if model is not None and model not in listing.cards:
        fail(f"--model: the server has no {model!r}; it has {names(listing)}")
    if model is None and len(listing.cards) > 1 and not asks:
        fail(f"the server has {names(listing)}; say which with --model", 2)
    chosen = model or served_model(listing)
    card = listing.cards[chosen]
    catalog = load_catalog()
    try:
        known = catalog.models[catalog.find(card.parent or card.root or chosen)]
    except CatalogError:
        known = None
    adapter = chosen if card.parent else None
    draft = served(
        expert or id_for(chosen, file), card.parent or chosen, file, url, listing.window(chosen), known, adapter
    )
    notes = () if known else (f"the catalogue does not know {chosen}: price and capabilities are yours to add",)
    return Found(draft, facts={"model": draft.model, "context_window": draft.context}, notes=notes)


def _examples(
    own: Sequence[str], propose: bool, asks: bool, file: ExpertsFile, state: Path, domain: str, about: str
) -> NewDomain:
    """Those of a new domain. Leaves with status 2 where there are none and nobody can be asked."""
    from gateway.commands import addquestions
    from router.cataloguing.proposals import propose as proposals
    from router.experts import LEAST_EXAMPLES
    from router.training.provision import load_or_train

    if asks and not about:
        about = addquestions.description(domain)
    near: list[str] = []
    if propose or (asks and not own):
        from gateway.console import shown_progress

        with shown_progress() as progress:
            near = proposals(load_or_train(file, state, progress), f"{domain}: {about}" if about else domain)
    if asks and not own:
        return NewDomain(domain, about, addquestions.examples(near, LEAST_EXAMPLES))
    prompts = tuple(dict.fromkeys([*own, *near]))
    if not prompts:
        fail(
            f"the domain {domain!r} is new: give prompts of it with --examples FILE, or have some of the corpus with --propose",
            2,
        )
    return NewDomain(domain, about, prompts)


def _checked(url: str) -> str:
    """An address with a path. Leaves with status 2 where it is none."""
    from gateway.commands.gatewayurl import checked_url

    return _with_path(checked_url(url))


def _with_path(url: str) -> str:
    """vLLM's API is under /v1."""
    return f"{url.rstrip('/')}/v1" if urlsplit(url).path in ("", "/") else url


def _precision(copy: str | None) -> Precision | None:
    """What a quantised copy has, by its name."""
    if copy is None:
        return None
    return "fp8" if "fp8" in copy.lower() else "4bit"


def _facts(found: Fit) -> dict[str, Any]:
    return {
        "model": found.model.name,
        "precision": found.precision,
        "gpus": found.gpus,
        "context_window": found.context,
        "gb_of_each_gpu": round(found.each_gb, 1),
    }


def _notes(found: Fit, quantised: str | None) -> list[str]:
    notes = []
    if found.precision == "4bit" and found.quantised and quantised is None:
        notes.append(
            "at 4 bits vLLM rounds the weights while it loads them (MXFP4, vLLM 0.29 or newer); a copy that was quantised with "
            "AWQ or GPTQ answers better: name one with --quantised"
        )
    if found.precision == "fp8" and found.quantised and quantised is None:
        notes.append(
            "at fp8 vLLM rounds the weights while it loads them; a GPU older than Ada computes with them in 16 bits"
        )
    if found.model.context and found.context < found.model.context:
        notes.append(
            f"a context of {found.context:,} tokens goes in, of the {found.model.context:,} that the model has"
        )
    if found.model.licence and found.model.licence.limits:
        notes.append(f"{found.model.licence.id}: {found.model.licence.limits}")
    return notes
