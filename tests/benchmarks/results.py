"""The figures of a comparison as a Markdown table a file, and as a picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tests.benchmarks import methods, routed
from tests.benchmarks.scatter import Look, Point, scatter

Found = Mapping[str, Mapping[str, Any]]

COLUMNS = ("plain", "hard", "multilingual", "conversation", "mean", "flips", "ECE", "passed on")
LOOKS = {
    methods.LEXICAL: Look("square", "#6b7280", "#9aa4b2"),
    "MiniLM token table": Look("triangle", "#b45309", "#f0a64b"),
    "MiniLM": Look("circle", "#b45309", "#f0a64b"),
    "MiniLM, contrastive": Look("circle", "#a21caf", "#e27df0"),
    "distilled n-grams": Look("triangle", "#1d4ed8", "#7aa5ff"),
    "fine-tuned": Look("circle", "#1d4ed8", "#7aa5ff"),
    "fine-tuned, 3 layers": Look("circle", "#0f766e", "#4fd1c0"),
    methods.MEANS: Look("diamond", "#6b7280", "#d1d5db"),
    methods.CASCADE: Look("star", "#b45309", "#f0a64b"),
    routed.FAMILY: Look("star", "#15803d", "#6cc794"),
}
OTHER = Look("square", "#1b1f24", "#e8eaed")
COSTS = ("µs mean", "µs p50", "µs p99", "fit s", "MB")


def front(found: Found, measured: str) -> frozenset[str]:
    """The methods than which no other is both as right on average and as quick, or better in one of the two."""

    def beaten(name: str) -> bool:
        right, quick = _place(found[name], measured)
        places = (_place(other, measured) for other in found.values())
        return any(r >= right and q <= quick and (r, q) != (right, quick) for r, q in places)

    return frozenset(name for name in found if not beaten(name))


def _place(figures: Mapping[str, Any], measured: str) -> tuple[float, float]:
    return figures["sets"][measured]["mean"], figures["cost"]["mean_us"]


def markdown(found: Found) -> str:
    """One table for each file that was measured on; methods on the front are bold."""
    return "\n".join(line for measured in sets_of(found) for line in _table(found, measured))


def sets_of(found: Found) -> list[str]:
    """The names of the files that every method was measured on."""
    every = [list(figures["sets"]) for figures in found.values()]
    return [name for name in every[0] if all(name in names for names in every)] if every else []


def _table(found: Found, measured: str) -> Iterator[str]:
    best = front(found, measured)
    yield f"### {measured}"
    yield ""
    yield "| method | " + " | ".join((*COLUMNS, *COSTS)) + " |"
    yield "|---|" + "---:|" * (len(COLUMNS) + len(COSTS))
    for name, figures in found.items():
        shown = f"**{name}**" if name in best else name
        yield f"| {shown} | " + " | ".join(_cells(figures["sets"][measured], figures)) + " |"
    yield ""


def _cells(right: Mapping[str, Any], figures: Mapping[str, Any]) -> Iterator[str]:
    for name in ("plain", "hard", "multilingual", "conversation", "mean"):
        yield "–" if right[name] is None else f"{right[name]:.3f}"
    yield "–" if right["flips"] is None else f"{right['flips']:.1%}"
    yield f"{right['ece']:.3f}"
    yield f"{right['passed_on']:.0%}" if "passed_on" in right else ""
    spent = figures["cost"]
    yield from (f"{spent[name]:,.0f}" for name in ("mean_us", "p50_us", "p99_us"))
    yield "" if figures["fit_s"] is None else f"{figures['fit_s']:.1f}"
    yield f"{spent['resident_mb']:.0f}"


def picture(found: Found) -> str:
    """How right against how quick, on the first file."""
    measured = sets_of(found)[0]
    best = front(found, measured)
    points = [
        Point(
            microseconds=figures["cost"]["mean_us"],
            right=figures["sets"][measured]["mean"],
            label=figures["label"],
            family=figures["family"],
            joined="passed_on" in figures["sets"][measured],
            best=name in best,
        )
        for name, figures in found.items()
    ]
    looks = {family: LOOKS.get(family, OTHER) for family in dict.fromkeys(p.family for p in points)}
    axis = "mean of plain macro-F1 and of hard, multilingual and conversation accuracy"
    foot = "a prompt of about 60 tokens, one thread, mean; at a star: the confidence from which the cheap stage answers alone"
    return scatter(points, looks, f"Right against quick: {measured}", axis, foot)
