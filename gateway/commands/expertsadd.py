"""moe-gateway experts add."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.commands.adding import Addition, NewDomain, read_examples, read_qualities
from gateway.commands.shared import DEFAULT_CONFIG, Config, Json, State, read_config, state_folder
from gateway.console import err, fail, out, print_json, printable

if TYPE_CHECKING:
    from gateway.commands.editing import Edit
    from gateway.commands.effect import Effect
    from router.experts import ExpertsFile


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
    from gateway.commands.drafting import of_catalogue, of_server
    from gateway.commands.editing import edited
    from router.cataloguing.catalog import load_catalog

    asks = out.is_terminal and sys.stdin.isatty() and not (as_json or yes)
    file, folder = read_config(config), state_folder(config, state)
    if name is None and url is None:
        if not asks:
            fail("name a model of the catalogue, or the address of a server with --url; on a terminal it asks", 2)
        said = addquestions.model_or_address(load_catalog(), gpu_memory, gpus)
        name, url = (None, said) if "://" in said else (said, None)
    if name is not None:
        found = of_catalogue(name, expert, gpu_memory, gpus, url, quantised, file)
    else:
        found = of_server(str(url), model, expert, api_key, file, asks)
    draft = replace(found.draft, key=api_key) if url else found.draft
    if asks and expert is None:
        draft = replace(draft, expert=addquestions.expert_id(draft.expert, file.experts))
    if draft.expert in file.experts:
        fail(f"{config} has an expert {draft.expert!r} already; name another with --id")
    qualities = _qualities(domain, draft.domains)
    if asks and not domain:
        qualities = addquestions.domains(qualities, file.domain_names)
    if not qualities:
        fail("nobody knows what it is good at; say so with --domain, such as --domain legal=0.9", 2)
    new = [name for name in qualities if name not in file.domain_names]
    if examples and len(new) != 1:
        fail(f"--examples are for one new domain; --domain names {len(new)}", 2)
    own = read_examples(examples) if examples else []
    domains = tuple(_new_domain(one, description, own, propose, asks, file, folder) for one in new)
    addition = Addition(replace(draft, domains=qualities), domains)
    edit = edited(config, lambda text: addition.into(text, config.name))
    if not as_json:
        _show_entry(addition)
    wanted = effect or (effect is None and out.is_terminal)
    predicted = _predicted(addition, edit, folder, quiet=as_json) if wanted else None
    if asks and not dry_run and not typer.confirm(f"\nWrite it to {config}?", default=True):
        fail("nothing was written")
    if not dry_run:
        edit.write()
    if as_json:
        entry = {
            "id": draft.expert,
            "written": not dry_run,
            "entry": addition.draft.lines(),
            "command": list(found.command),
        }
        print_json({**entry, **(found.facts or {}), "effect": predicted.described() if predicted else None})
        return
    done = f"would go into {config}" if dry_run else f"written to {config}"
    worker = f"; worker: {shlex.join(found.command)}" if found.command else ""
    out.print(f"{draft.expert}: {done}{worker}", markup=False, highlight=False, soft_wrap=True)
    for note in found.notes:
        err.print(f"note: {printable(note)}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def _qualities(said: Sequence[str] | None, known: Mapping[str, float | None]) -> dict[str, float | None]:
    """What is said, else what is known. Leaves with status 2 where that cannot be read."""
    try:
        return read_qualities(said) if said else dict(known)
    except ValueError as error:
        fail(f"--domain takes {error}", 2)


def _show_entry(addition: Addition) -> None:
    """Prompts may be long: on a terminal a line is cut at its edge."""
    whole: dict[str, Any] = {"soft_wrap": True}
    cut: dict[str, Any] = {"no_wrap": True, "overflow": "ellipsis"}
    for line in addition.lines():
        out.print(line, markup=False, highlight=False, **(cut if out.is_terminal else whole))
    out.print()


def _predicted(addition: Addition, edit: Edit, state: Path, quiet: bool) -> Effect:
    """Raises RouterError."""
    from gateway.commands.effect import effect_of, show

    prompts = [prompt for one in addition.domains for prompt in one.examples]
    predicted = effect_of(addition.draft.expert, edit.before, edit.after, prompts, state)
    if not quiet:
        show(predicted)
    return predicted


def _new_domain(
    domain: str, about: str, own: Sequence[str], propose: bool, asks: bool, file: ExpertsFile, state: Path
) -> NewDomain:
    """With its example prompts. Leaves with status 2 where there are none and nobody can be asked."""
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
