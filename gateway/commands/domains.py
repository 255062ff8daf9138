"""moe-gateway domains: the domains that the router tells apart."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.commands.asked import MOST, Ledger, Most, Since, asked_prompts
from gateway.commands.shared import DEFAULT_CONFIG, Config, Json, State, read_config, state_folder
from gateway.console import err, out, print_json, shown_progress
from router.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from router.experts import ExpertsFile
    from router.rerouting import Progress, Prompt, Rerouting
    from router.routing import Router
    from router.suggesting.suggestion import Suggestion

domains = typer.Typer(no_args_is_help=True, help="The domains of an experts.yaml: propose new ones.")


@domains.callback()
def _group() -> None:
    """Of one command Typer would make no group."""


@domains.command()
def suggest(
    source: Annotated[
        str,
        typer.Option(
            "--from", metavar="FILE|ledger", help="JSON lines with prompt or messages, - is stdin; or recorded traffic."
        ),
    ],
    since: Since = "7d",
    most: Most = MOST,
    ledger: Ledger = None,
    max_gb: Annotated[
        float,
        typer.Option("--max-gb", metavar="GB", min=1, max=10_000, help="Propose models that need at most so much."),
    ] = 24.0,
    with_effect: Annotated[
        bool,
        typer.Option(
            "--effect/--no-effect", help="Predict what the proposals would do, for which a router is trained."
        ),
    ] = True,
    config: Config = DEFAULT_CONFIG,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Propose domains for what no specialist answers: names, sizes, example prompts, a model, the YAML, and what it would do.

    Nothing is written, no expert is asked, and what a running gateway uses is left as it is.

    Example: moe-gateway domains suggest --from prompts.jsonl

    Example: moe-gateway domains suggest --from ledger --since 30d --json
    """
    file = read_config(config)
    traffic = asked_prompts(source, since, most, ledger, config, state)
    from router.cataloguing.catalog import load_catalog
    from router.suggesting.pool import background_of, gather
    from router.suggesting.suggestion import suggestions
    from router.training.trial import trial_router

    with shown_progress() as progress, TemporaryDirectory(prefix="moe-gateway-") as scratch:
        folder = Path(scratch)
        router = trial_router(file, state_folder(config, state), folder / "old", progress)
        pool = gather(router, traffic.prompts, progress)
        found = suggestions(pool, background_of(router), file, load_catalog(), max_gb)
        effect = predicted(router, found, traffic.prompts, folder / "new", progress) if with_effect else None
    if as_json:
        print_json(_document(pool.described(), found, effect))
        return
    from rich.console import Group

    from gateway.commands.domainsscreen import rendered
    from router.suggesting.effect import snippet

    out.print(Group(*rendered(pool, found, effect, config.name)), highlight=False)
    if found:
        out.print("\n".join(snippet(found)), markup=False, highlight=False, soft_wrap=True)


def predicted(
    router: Router, found: Sequence[Suggestion], prompts: Sequence[Prompt], scratch: Path, progress: Progress
) -> Rerouting | None:
    """What all proposals together would do to the prompts; None where there are none, or the file has no place for them."""
    from router.rerouting import compare
    from router.suggesting.effect import with_suggestions
    from router.training.trial import trial_router

    sources = router.file.sources
    if not found or sources is None:
        return None
    try:
        changed: ExpertsFile = with_suggestions(sources, found)
    except ConfigError as error:
        err.print(f"warning: no effect is predicted: {error}", style="yellow", markup=False, soft_wrap=True)
        return None
    return compare(router, trial_router(changed, scratch / "none", scratch, progress), prompts, progress)


def _document(pool: dict[str, Any], found: Sequence[Suggestion], effect: Rerouting | None) -> dict[str, Any]:
    from router.suggesting.effect import snippet

    told = effect.described() if effect else None
    if told is not None:
        del told["routes"]  # moe-gateway diff-routing has every prompt
    yaml = "\n".join(snippet(found)) + "\n" if found else None
    return {**pool, "suggestions": [one.described() for one in found], "yaml": yaml, "effect": told}
