"""Proposed domains on a terminal. Prompts are made visible and printed as text, never as markup."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gateway.commands.reroutingscreen import quality
from router.explaining.explanation import line_of
from router.rerouting import NOBODY, Rerouting
from router.suggesting.clusters import LEAST_LIFT, LEAST_TEXTS
from router.suggesting.pool import Pool
from router.suggesting.suggestion import LEAST_POOL, Suggestion

SHOWN = 5  # examples of each; the YAML has them all


def rendered(
    pool: Pool, found: Sequence[Suggestion], effect: Rerouting | None, config: str
) -> Iterator[RenderableType]:
    """From top to bottom, but for the YAML, which stands below; `config` is the file's name."""
    yield Text(_looked_at(pool))
    for note in _left_aside(pool):
        yield Text(note, "dim")
    yield Text()
    if not found:
        yield Text(_why_none(pool), "bold")
        return
    for one in found:
        yield _suggestion(one, effect)
        yield Text()
    if effect is not None:
        yield Text(
            f"Of all {len(effect.routes)} prompts {100 * effect.share:.1f} % would go elsewhere; expected quality "
            f"{quality(effect.quality)}, if the new experts are as good as the lines below say."
        )
    yield Text(
        f"Read the examples before you paste them into {config}: names of people, and whatever else is nobody's business, are not "
        "found by any rule. Then see with moe-gateway diff-routing which prompts go where.\n",
        "yellow",
    )


def _looked_at(pool: Pool) -> str:
    share = f"{100 * pool.unanswered / max(1, pool.prompts):.1f} %"
    texts = f"{len(pool.texts)} different texts"
    return f"{pool.prompts} prompts; no specialist answers {pool.unanswered} of them ({share}), {texts}"


def _left_aside(pool: Pool) -> Iterator[str]:
    if pool.noise:
        yield f"{pool.noise} of those are no text that could be judged"
    if pool.unread:
        languages = ", ".join(f"{language or 'unknown'} {count}" for language, count in pool.unread.items())
        yield (
            f"{sum(pool.unread.values())} are in languages that the router cannot read ({languages}): an expert with languages: "
            "takes those"
        )
    if pool.left_out:
        yield f"{pool.left_out} older texts were left out"


def _why_none(pool: Pool) -> str:
    if len(pool.texts) < LEAST_POOL:
        return f"no domain is proposed: that is too little to say anything; {LEAST_POOL} different texts are the least"
    return (
        f"no domain is proposed: no {LEAST_TEXTS} texts or more are about one thing and {LEAST_LIFT:g} times as frequent as in "
        "what the router has learnt from"
    )


def _suggestion(one: Suggestion, effect: Rerouting | None) -> RenderableType:
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("about", Text(", ".join(one.terms)))
    if set(one.languages) - {"en"}:
        facts.add_row("languages", Text(", ".join(f"{language} {count}" for language, count in one.languages.items())))
    if one.match is None:
        facts.add_row("model", "none of the catalogue is as small as --max-gb says")
    else:
        facts.add_row("model", Text(f"{one.match.key}: {one.match.why}"))
    if effect is not None:
        facts.add_row("effect", Text(_taken(one, effect)))
    for number, example in enumerate(one.examples[:SHOWN]):
        facts.add_row("for example" if not number else "", Text(line_of(example)))
    head = f"{len(one.members)} texts, {one.requests} requests, {one.lift:.1f} times as frequent as in the corpus"
    return Group(Text.assemble((one.name, "bold green"), f"   {head}"), facts)


def _taken(one: Suggestion, effect: Rerouting) -> str:
    flows = [flow for flow in effect.flows() if flow.new == one.expert]
    if not flows:
        return "no prompt would go to it"
    whole = sum(len(flow.routes) for flow in flows)
    origins = ", ".join(f"{len(flow.routes)} from {flow.old if flow.old != NOBODY else 'nobody'}" for flow in flows)
    return f"{whole} prompts would go to it: {origins}"
