"""What a change of the experts file does to prompts, on a terminal. Prompts are made visible and printed as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from router.explaining.explanation import line_of
from router.prices import ASSUMED_TOKENS_PER_SECOND
from router.rerouting import Change, Flow, Landing, Rerouting, Route
from router.roster import ASSUMED_ANSWER_TOKENS

SHOWN = 8  # of the most surprising moves
THOUSAND = 1000
LEAST_SHOWN = 0.0001  # USD
NOTHING = "–"
WORSE, BETTER = "red", "green"


def rendered(found: Rerouting, old: str, new: str) -> Iterator[RenderableType]:
    """From top to bottom; `old` and `new` are the names of the files."""
    yield Text.assemble((headline(found), "bold"), (f"   {old} → {new}", "dim"))
    if found.unanswered:
        yield Text(f"{len(found.unanswered)} of them nobody would answer any more", "bold red")
    yield _totals(found)
    if not found.moved:
        return
    yield Text()
    yield _flows(found.flows(), len(found.routes))
    yield Text("\nthe most surprising first", "bold")
    yield from _moves(found.moved[:SHOWN])
    if (left := len(found.moved) - SHOWN) > 0:
        yield Text(f"and {left} more: --html FILE or --json has them all", "dim")
    yield Text()
    yield from (Text(note, "dim") for note in notes(found))


def headline(found: Rerouting) -> str:
    if not found.moved:
        return f"none of {len(found.routes)} prompts goes elsewhere"
    verb = "goes" if len(found.moved) == 1 else "go"
    return f"{len(found.moved)} of {len(found.routes)} prompts {verb} elsewhere ({100 * found.share:.1f} %)"


def notes(found: Rerouting) -> Iterator[str]:
    """What the figures rest on, a sentence each."""
    prompts = len(found.routes)
    yield (
        "Expected quality is Σ P(domain) × quality, both choices by the new router's probabilities and the new file's figures; an "
        "expert that the new file lacks, or has with another model, keeps those of the old one."
    )
    recorded = sum(route.prompt.answered is not None for route in found.routes)
    length = f"an answer of {ASSUMED_ANSWER_TOKENS} tokens, or fewer where the request or the expert bounds it"
    if recorded == prompts:
        length = "the answers that were recorded"
    elif recorded:
        length = f"the answers that were recorded for {recorded} prompts, elsewhere {length}"
    yield f"Cost is that of the prompt and {length}; nothing is taken to come from a cache."
    if found.hourly:
        pace = f"{ASSUMED_TOKENS_PER_SECOND:,.0f} tokens a second"
        yield f"That of {found.hourly} prompts rests on experts that are paid by the hour and are taken to answer {pace}."
    if found.cost.prompts < prompts:
        yield f"It is known on both sides for {found.cost.prompts} of {prompts} prompts; the others are left out of it."


def quality(change: Change) -> str:
    if change.before is None or change.after is None:
        return NOTHING
    return f"{change.before:.3f} → {change.after:.3f}"


def cost(change: Change) -> str:
    """USD for a thousand prompts."""
    if change.before is None or change.after is None:
        return NOTHING
    return f"{_usd(THOUSAND * change.before)} → {_usd(THOUSAND * change.after)}"


def relative(change: Change) -> str:
    """What a cost grew by, in percent."""
    if not change.before or not change.difference:
        return ""
    return f"{100 * change.difference / change.before:+.1f} %"


def landed(landing: Landing) -> str:
    """What the router said, and why the policy chose."""
    if landing.expert is None:
        return landing.reason
    if landing.domain is None or landing.confidence is None:
        return landing.reason
    return f"{landing.domain} {landing.confidence:.2f}, {landing.reason}"


def ends(route: Route) -> str:
    old, new = route.old, route.new
    if old.expert == new.expert:
        return f"{old.expert}: {old.model} → {new.model}"
    return f"{old.expert or 'nobody'} → {new.expert or 'nobody'}"


def _totals(found: Rerouting) -> Table:
    table = Table.grid(padding=(0, 2))
    difference = found.quality.difference
    rows = (
        (
            "expected quality",
            quality(found.quality),
            f"{difference:+.3f}" if difference else "",
            difference or 0.0,
        ),
        ("USD for 1,000 prompts", cost(found.cost), relative(found.cost), -(found.cost.difference or 0.0)),
    )
    for name, change, by, good in rows:
        table.add_row(Text(name, "dim"), change, Text(by, _colour(good)))
    return table


def _flows(flows: Sequence[Flow], prompts: int) -> Table:
    table = Table("from", "to", box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for title in ("prompts", "of all", "expected quality", "USD / 1,000"):
        table.add_column(title, justify="right", no_wrap=True)
    for flow in flows:
        share = f"{100 * len(flow.routes) / prompts:.1f} %"
        change = Text(quality(flow.quality), _colour(flow.quality.difference or 0.0))
        cells = (Text(flow.old), Text(flow.new), str(len(flow.routes)), share, change, cost(flow.cost))
        table.add_row(*cells)
    return table


def _moves(routes: Sequence[Route]) -> Iterator[RenderableType]:
    for route in routes:
        yield Text.assemble(
            ("#", "dim"), (line_of(route.prompt.id), "dim"), "  ", (ends(route), "bold"), "  ",
            (f"{landed(route.old)} → {landed(route.new)}", "dim"),
        )  # fmt: skip
        yield Padding(Text(line_of(route.prompt.query.text)), (0, 0, 0, 4))


def _usd(value: float) -> str:
    """Three figures of it below a dollar, never as a power of ten."""
    if value >= 1 or value == 0:
        return f"${value:,.2f}"
    return f"${value:#.3g}" if value >= LEAST_SHOWN else f"< ${LEAST_SHOWN}"


def _colour(good: float) -> str:
    """Of a change that is good where it is above 0; one that nobody would see has none."""
    return "" if abs(good) < 5e-4 else BETTER if good > 0 else WORSE
