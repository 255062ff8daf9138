"""What a change of the experts file does to prompts, as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.commands.reroutingscreen import cost, ends, headline, landed, notes, quality, relative
from router.measuring.pages import document_page, figure, section, table
from router.measuring.plots import Bar, bars, escaped
from router.rerouting import Landing, Rerouting, Route

MOST_ROWS = 1000
STYLE = """
.moves td:nth-child(n+2):nth-child(-n+4){white-space:nowrap}.moves td:last-child{overflow-wrap:anywhere;min-width:300px}
.moves td:last-child{white-space:pre-wrap}.soft{color:var(--soft)}.notes{color:var(--soft);font-size:13px;max-width:90ch}
"""


def page(found: Rerouting, old: str, new: str) -> str:
    """`old` and `new` are the names of the files."""
    said = headline(found)
    head = f"<h1>{escaped(said[0].upper() + said[1:])}</h1><p class=sub>{escaped(old)} → {escaped(new)}</p>"
    parts = [head, _tiles(found), _experts(found)]
    if found.moved:
        parts += [_flows(found), _moves(found.moved)]
    rests = "".join(f"<li>{escaped(note)}</li>" for note in notes(found))
    parts.append(section("What the figures rest on", "", f"<ul class=notes>{rests}</ul>"))
    return document_page("Routing before and after", *parts, style=STYLE)


def _tiles(found: Rerouting) -> str:
    change = found.quality.difference
    tiles = [
        _tile("prompts that go elsewhere", f"{100 * found.share:.1f} %", f"{len(found.moved)} of {len(found.routes)}"),
        _tile("expected quality", quality(found.quality), "" if change is None else f"{change:+.3f}", _kind(change)),
        _tile("USD for 1,000 prompts", cost(found.cost), relative(found.cost), _kind(found.cost.difference, -1)),
    ]
    if found.unanswered:
        tiles.append(_tile("nobody answers any more", str(len(found.unanswered)), "prompts", "missed"))
    return f"<div class=tiles>{''.join(tiles)}</div>"


def _tile(name: str, value: str, verdict: str, kind: str = "") -> str:
    inner = f"<div class=name>{escaped(name)}</div><div class=value>{escaped(value)}</div>"
    return f"<div class='tile {kind}'>{inner}<div class=verdict>{escaped(verdict)}</div></div>"


def _kind(change: float | None, good: int = 1) -> str:
    """A class of the page's style; `good` is 1 where more is better, -1 where less is."""
    if change is None or abs(change) < 1e-12:
        return ""
    return "met" if change * good > 0 else "missed"


def _experts(found: Rerouting) -> str:
    whole = len(found.routes) or 1
    counts = sorted(found.counts().items(), key=lambda item: (-max(item[1]), item[0]))
    plots = [
        figure(when, bars([Bar(name, sides[i] / whole, f"{sides[i]} of {whole}") for name, sides in counts], when))
        for i, when in enumerate(("before", "after"))
    ]
    why = "The share of all prompts that each expert answers."
    return section("Who answers", why, f"<div class=pair>{''.join(plots)}</div>")


def _flows(found: Rerouting) -> str:
    rows = [
        (
            escaped(f"{flow.old} → {flow.new}"),
            str(len(flow.routes)),
            f"{100 * len(flow.routes) / len(found.routes):.1f} %",
            escaped(quality(flow.quality)),
            escaped(cost(flow.cost)),
            escaped(relative(flow.cost)),
        )
        for flow in found.flows()
    ]
    head = ("from → to", "prompts", "of all", "expected quality", "USD / 1,000", "")
    return section("From where to where", "The largest first.", table(head, rows, "figures"))


def _moves(moved: Sequence[Route]) -> str:
    why = "The most surprising first: those that lose most in expected quality and in the router's confidence together."
    if len(moved) > MOST_ROWS:
        why += f" The first {MOST_ROWS} of {len(moved)}; --json has them all."
    rows = [
        (
            escaped(route.prompt.id),
            escaped(ends(route)),
            f"{_side(route.old)}<br>{_side(route.new)}",
            escaped(quality_of(route)),
            escaped(route.prompt.query.text),
        )
        for route in moved[:MOST_ROWS]
    ]
    head = ("prompt", "from → to", "before and after", "expected quality", "what was asked")
    return section("Prompt by prompt", why, table(head, rows, "moves"))


def quality_of(route: Route) -> str:
    old, new = route.old.quality, route.new.quality
    return "–" if old is None or new is None else f"{old:.3f} → {new:.3f}"


def _side(landing: Landing) -> str:
    return f"<span class=soft>{escaped(landed(landing))}</span>"
