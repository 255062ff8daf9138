"""moe-gateway diff-routing."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.commands.asked import MOST, Ledger, Most, Since, Source, asked_prompts
from gateway.commands.shared import DEFAULT_CONFIG, Json, State, read_config, state_folder
from gateway.console import fail, out, print_json, shown_progress

if TYPE_CHECKING:
    from router.rerouting import Rerouting


def diff_routing(
    prompts: Source,
    config: Annotated[Path, typer.Option("--config", "-c", help="The experts file as it would be.")],
    against: Annotated[
        Path, typer.Option("--against", envvar="MOE_GATEWAY_CONFIG", help="The experts file as it is.")
    ] = DEFAULT_CONFIG,
    since: Since = "7d",
    most: Most = MOST,
    ledger: Ledger = None,
    model: Annotated[str, typer.Option(help="The virtual model that a file's prompts ask for.")] = "auto",
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page as well.")] = None,
    fail_over: Annotated[
        float | None,
        typer.Option("--fail-over", metavar="PERCENT", min=0, max=100, help="Exit 1 where more prompts go elsewhere."),
    ] = None,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Say which prompts another experts file would send elsewhere, and what becomes of cost and expected quality.

    No expert is asked, and what a running gateway uses is left as it is.

    Example: moe-gateway diff-routing --config new.yaml --prompts prompts.jsonl --html diff.html

    Example: moe-gateway diff-routing --config new.yaml --prompts ledger --since 24h --fail-over 10
    """
    from router.policy import POLICIES

    if model not in POLICIES:
        raise typer.BadParameter(f"one of {', '.join(POLICIES)}", param_hint="--model")
    folder = state_folder(against, state)
    old, new = read_config(against), read_config(config)
    traffic = asked_prompts(prompts, since, most, ledger, against, state, model)
    from router.rerouting import compare
    from router.training.trial import trial_router

    with shown_progress() as progress, TemporaryDirectory(prefix="moe-gateway-") as scratch:
        before = trial_router(old, folder, Path(scratch) / "old", progress)
        after = trial_router(new, folder, Path(scratch) / "new", progress)
        found = compare(before, after, traffic.prompts, progress)
    names = _names(against, config)
    if html is not None:
        _write(html, found, names)
    if as_json:
        print_json({"old": names[0], "new": names[1], "unusable_lines": len(traffic.problems), **found.described()})
    else:
        from rich.console import Group

        from gateway.commands.reroutingscreen import rendered

        out.print(Group(*rendered(found, *names)), highlight=False)
    if html is not None and not as_json:
        out.print(f"page: {html}", markup=False, highlight=False, soft_wrap=True)
    if fail_over is not None and 100 * found.share > fail_over:
        fail(f"{100 * found.share:.1f} % of the prompts go elsewhere, more than --fail-over {fail_over:g}")


def _names(against: Path, config: Path) -> tuple[str, str]:
    """What the two files are called: their names, or their paths where those are the same."""
    return (against.name, config.name) if against.name != config.name else (str(against), str(config))


def _write(path: Path, found: Rerouting, names: tuple[str, str]) -> None:
    from gateway.commands.reroutingpage import page
    from gateway.replacing import replace_file

    replace_file(path, page(found, *names))
