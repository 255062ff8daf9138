"""The figures of adding domains as Markdown tables, between two marks of a page, and as a plot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.benchmarks.line_plot import Point, line_plot

Found = Mapping[str, Any]

START, END = "<!-- figures: make bench-domains writes them -->", "<!-- end of figures -->"
USUAL = "10"
LOSSES = (
    "macro-F1",
    "change",
    "change, every move wrong",
    "moved",
    "of them rightly",
    "found, of its own",
    "read by the transformer",
)


def page_with(page: str, figures: str) -> str:
    """`page` with `figures` between its marks. Raises ValueError where it has not both, once and in order."""
    before, started, rest = page.partition(START)
    _, ended, after = rest.partition(END)
    if not started or not ended or START in after or END in before + after:
        raise ValueError(f"the page needs {START!r} and after it {END!r}, once")
    return f"{before}{START}\n\n{figures}\n\n{END}{after}"


def tables(out: Found) -> Iterator[str]:
    yield from _new(out)
    yield ""
    yield from _old(out)
    yield ""
    yield from _cost(out)


def _new(out: Found) -> Iterator[str]:
    """How many of a new domain's prompts are found, by the number of examples."""
    domains = list(out["sizes"])
    drawn = f"mean of {out['draws']} draws of examples, worst to best"
    yield f"Of {out['tests']} prompts of the domain that were not among the examples, so many go to it ({drawn}):"
    yield ""
    yield "| examples | " + " | ".join((*domains, "mean", "of 1,000 other prompts taken", "precision", "ECE")) + " |"
    yield "|---|" + "---:|" * (len(domains) + 4)
    sizes = {size: [out["sizes"][d][size]["new"] for d in domains] for size in out["sizes"][domains[0]]}
    rows = sizes | {f"{USUAL}, all alike": [out["narrow"][d]["new"] for d in domains]}
    rows[f"{USUAL}, all {len(domains)} domains at once"] = [out["together"][d]["new"] for d in domains]
    for name, found in rows.items():
        cells = [f"{f['recall']:.0%} ({100 * f['recall_least']:.0f}–{100 * f['recall_most']:.0f})" for f in found]
        cells += [f"**{_mean(found, 'recall'):.0%}**", f"{1000 * _mean(found, 'taken'):.0f}"]
        cells += [f"{_mean(found, 'precision'):.0%}", f"{_mean(found, 'ece'):.3f}"]
        yield f"| {name} | " + " | ".join(cells) + " |"


def _mean(found: Sequence[Mapping[str, float]], name: str) -> float:
    return sum(figures[name] for figures in found) / len(found)


def _old(out: Found) -> Iterator[str]:
    """What the built-in domains lose, and how many more prompts the transformer reads."""
    for name, before in out["before"].items():
        yield f"What the four built-in domains lose on `{name}` ({before['rows']:,.0f} plain prompts):"
        yield ""
        yield "| added | examples | " + " | ".join(LOSSES) + " |"
        yield "|---|---:|" + "---:|" * len(LOSSES)
        yield f"| nothing | | {before['f1']:.4f} | | | | | | {before['passed_on']:.0%} |"
        for domain, sizes in out["sizes"].items():
            for size, found in sizes.items():
                yield _row(domain, size, found["sets"][name], before)
        for domain, found in out["together"].items():
            yield _row(f"all at once: {domain}", USUAL, found["sets"][name], before)
        yield ""


def _row(domain: str, size: str, after: Mapping[str, float], before: Mapping[str, float]) -> str:
    share = f"{after['moved_rightly'] / after['inside']:.0%} of {after['inside']:.0f}" if after["inside"] else "–"
    cells = (
        f"{after['f1']:.4f}",
        _points(after["f1"] - before["f1"]),
        _points(after["f1_any_move_wrong"] - before["f1"]),
        f"{after['moved']:.0f}",
        f"{after['moved_rightly']:.0f}",
        share,
        f"{after['passed_on']:.0%}",
    )
    return f"| {domain} | {size} | " + " | ".join(cells) + " |"


def _points(change: float) -> str:
    """A change of a share in hundredths."""
    return f"{100 * change:+.2f}".replace("-", "−")


def _cost(out: Found) -> Iterator[str]:
    """What an operator waits for."""
    costs = list(out["cost"].values())
    seconds, peak = [c["seconds"] for c in costs], max(c["peak_mb"] for c in costs)
    busy = max(c["cpu_s"] for c in costs)
    torch = "torch was imported" if any(c["torch"] for c in costs) else "no torch, no GPU"
    took = f"{min(seconds):.1f} to {max(seconds):.1f} s ({busy:.1f} s of CPU at most)"
    yield f"Adding one with {USUAL} examples took {took} and {peak:.0f} MB at most; {torch}."


def methods_table(out: Found) -> Iterator[str]:
    """Ways to detect, each by itself in the best stage; nothing where they were not compared."""
    for name, sizes in out["methods"].items():
        for size, f in sizes.items():
            yield f"| {name} | {size} | " + " | ".join(f"{k} {v:.3f}" for k, v in f.items()) + " |"


def picture(out: Found) -> str:
    """Accuracy on the new domain against the number of examples."""
    lines = {
        domain: [
            Point(float(size), f["new"]["recall"], f["new"]["recall_least"], f["new"]["recall_most"])
            for size, f in sizes.items()
        ]
        for domain, sizes in out["sizes"].items()
    }
    title = "A new domain's prompts that find their way to it"
    foot = f"examples in experts.yaml; a point is the mean of {out['draws']} draws, the bar runs from the worst to the best"
    return line_plot(lines, title, "accuracy on prompts of the new domain", foot)
