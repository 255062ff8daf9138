"""moe-gateway experts: the experts of an experts.yaml."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.commands.expertsadd import add
from gateway.commands.gatewayurl import KEY, gateway_address
from gateway.commands.shared import DEFAULT_CONFIG, Config, Json, State, read_config, state_folder
from gateway.console import err, fail, out, print_json

experts = typer.Typer(
    no_args_is_help=True, help="The experts of an experts.yaml: list them, add one, try one, remove one."
)
experts.command()(add)


@experts.command("list")
def list_experts(config: Config = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """List the experts of a file.

    Example: moe-gateway experts list --config experts.yaml
    """
    from gateway.commands.expertslist import described, show

    rows = [described(name, expert) for name, expert in read_config(config).experts.items()]
    print_json({"object": "list", "data": rows}) if as_json else show(rows)


@experts.command("test")
def try_expert(
    expert: Annotated[str, typer.Argument(help="Its id; with --url any model that the gateway knows, such as auto.")],
    prompt: Annotated[str, typer.Argument(help="What to ask.")] = "In one sentence: what are you good at?",
    url: Annotated[
        str | None, typer.Option(help=f"Ask through this running gateway; its key is read from {KEY}.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", min=1, help="Of the answer.")] = 256,
    temperature: Annotated[float | None, typer.Option("--temperature", min=0, max=2)] = None,
    seconds: Annotated[float, typer.Option("--timeout", min=1, help="Seconds that the answer may take.")] = 120,
    config: Config = DEFAULT_CONFIG,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Put one prompt to one expert, straight to its server, and show the answer as it comes, how long it took and its cost.

    Example: moe-gateway experts test coder "Reverse a list in Haskell."
    """
    from gateway.commands import trying
    from gateway.comparing.answers import Sampling

    file = read_config(config)
    question = trying.Question(prompt, Sampling(max_tokens, temperature), seconds)
    hear = (lambda text, thought: None) if as_json else trying.heard
    if url is not None:
        answer = trying.run(trying.through(gateway_address(url, KEY), file, expert, question, hear))
    elif expert not in file.experts:
        fail(f"{config} has no expert {expert!r}; it has {', '.join(file.experts)}")
    else:
        answer = trying.run(trying.straight(file, expert, state_folder(config, state), question, hear))
    print_json(trying.described(answer)) if as_json else trying.show(answer)
    if answer.error:
        raise typer.Exit(1)


@experts.command()
def remove(
    expert: Annotated[str, typer.Argument(help="Its id.")],
    force: Annotated[bool, typer.Option("--force", help="Take out what refers to it, too, and do not ask.")] = False,
    config: Config = DEFAULT_CONFIG,
    state: State = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and write nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Take an expert out of an experts file, with the comments below its first line, and what refers to it where you say so.

    What stands in the file now goes into the history first: config rollback brings it back.

    Example: moe-gateway experts remove coder2
    """
    from gateway.commands.editing import edited
    from gateway.commands.removing import lodgers, references, without
    from gateway.history import History
    from router.sources import read_sources

    file = read_config(config)
    if expert not in file.experts:
        fail(f"{config} has no expert {expert!r}; it has {', '.join(file.experts)}")
    if others := lodgers(file, expert):
        fail(
            f"{', '.join(others)} answer with the worker of {expert}: remove them first, or give them another upstream"
        )
    found = references(file, expert)
    _agreed(expert, [reference.what for reference in found], force, dry_run)
    edit = edited(config, lambda text: without(text, expert, found, config.name))
    if expert in edit.after.experts:
        fail(f"{expert} stands in a file that {config} extends, too; take it out there, or write {expert}: null")
    if not dry_run:
        sources = read_sources(config)
        History(state_folder(config, state) / "history").record(sources, sources.digest, why="kept")
        edit.write()
    if as_json:
        print_json({"id": expert, "written": not dry_run, "with_it": [reference.what for reference in found]})
        return
    done = "would be removed from" if dry_run else "removed from"
    out.print(f"{expert}: {done} {config}", markup=False, highlight=False, soft_wrap=True)
    if edit.after.fallback != edit.before.fallback:
        out.print(
            f"{edit.after.fallback} answers when the router is unsure", markup=False, highlight=False, soft_wrap=True
        )


def _agreed(expert: str, found: list[str], force: bool, dry_run: bool) -> None:
    """Leaves with status 1 where what refers to it may not go, or nobody can be asked."""
    if not found:
        return
    say = err.print if not force else out.print
    for what in found:
        say(f"goes with {expert}: {what}", markup=False, highlight=False, soft_wrap=True)
    if force or dry_run:
        return
    if not (out.is_terminal and err.is_terminal):
        fail(f"{expert} is referred to; --force takes that out, too")
    if not typer.confirm("Take all of that out, too?"):
        fail("nothing was written")
