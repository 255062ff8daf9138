"""An evaluation as one HTML page: no script, nothing loaded from anywhere, light and dark, fit to print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from router.measuring.pages import document_page, figure, section, table
from router.measuring.plots import Bar, bars, escaped, heat_map, ranges, reliability, shortened
from router.measuring.requirements import Requirement, figures_of

# What the project sets out to reach; shown where the file has such parts.
TARGETS = (
    "plain.f1>=0.95", "hard.accuracy>=0.94", "conversation.accuracy>=0.96", "multilingual.accuracy>=0.88",
    "flips<=0.04", "plain.ece<=0.03", "latency.typical_request.p50_ms<=0.3", "latency.typical_request.p99_ms<=10",
    "latency.throughput>=1000",
)  # fmt: skip
TITLES = {
    "latency.typical_request.p50_ms": "routing time, median", "latency.typical_request.p99_ms": "routing time, 99th percentile",
    "latency.throughput": "prompts a second", "flips": "decisions that flip",
}  # fmt: skip
SLICES = ("language", "style", "tag", "length", "source", "stage", "reason")
MOST_BARS = 30
BASELINES = {
    "majority": "most common label", "keywords": "keyword lists", "always_general": "always general",
    "tf_idf": "TF-IDF + logistic",
}  # fmt: skip


@dataclass(frozen=True)
class About:
    """What stands at the head of a page: the measured file's name and when it was measured."""

    file: str
    when: str


def page(document: Mapping[str, Any], about: About, requirements: Sequence[Requirement] = ()) -> str:
    """The page for an evaluation's document (see evaluation.py). Requirements stand in place of the targets they name."""
    sections = [
        _tiles(document, requirements), _parts(document), _domains(document), _calibration(document),
        _baselines(document), _robustness(document), _conversation(document), _latency(document),
        _decisions(document), _slices(document), _errors(document),
    ]  # fmt: skip
    head = (
        f"<h1>How right the router is</h1><p class=sub>{document['rows']} labelled prompts of {escaped(about.file)}, "
    )
    head += f"measured {escaped(about.when)}; router <code>{escaped(document['artifact'])}</code></p>"
    return document_page("Router evaluation", head, *sections)


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def shown(name: str, value: float) -> str:
    """A figure in its unit, which its name tells."""
    if name.endswith("_ms"):
        return f"{value:.3g} ms"
    if name.endswith("throughput"):
        return f"{value:,.0f}"
    return f"{value:.3f}" if name.endswith(("f1", "ece", "quality_lost")) else percent(value)


def _tiles(document: Mapping[str, Any], requirements: Sequence[Requirement]) -> str:
    wanted = {r.name: r for r in (*map(Requirement.parse, TARGETS), *requirements)}
    figures = figures_of(document)
    tiles = [_tile(r, figures[name]) for name, r in wanted.items() if name in figures]
    if not tiles:
        tiles = [_plain_tile(name, figures[name]) for name in ("accuracy", "f1", "ece", "flips") if name in figures]
    return f"<div class=tiles>{''.join(tiles)}</div>"


def _tile(requirement: Requirement, figure: float) -> str:
    met = requirement.met(figure)
    sign, kind = ("✓", "met") if met else ("✗", "missed")
    bound = f"{'at least' if requirement.least else 'at most'} {shown(requirement.name, requirement.value)}"
    name = TITLES.get(requirement.name, requirement.name.replace(".", " ").replace("_", " "))
    value = shown(requirement.name, figure)
    return (
        f"<div class='tile {kind}'><div class=name>{escaped(name)}</div><div class=value>{value}</div>"
        f"<div class=verdict>{sign} {kind}: {bound}</div></div>"
    )


def _plain_tile(name: str, figure: float) -> str:
    return f"<div class=tile><div class=name>{escaped(name)}</div><div class=value>{shown(name, figure)}</div></div>"


def _parts(document: Mapping[str, Any]) -> str:
    parts = [("every row", document["all"]), *document["parts"].items()]
    head = ("part", "rows", "accuracy", "macro-F1", "mean over sources", "ECE", "flips", "quality lost")
    rows = [
        (
            escaped(name), str(part["rows"]), percent(part["accuracy"]), f"{part['f1']:.3f}", percent(part["source_accuracy"]),
            f"{part['ece']:.3f}", percent(part["flips"]), f"{part['quality_lost']:.4f}",
        )
        for name, part in parts
    ]  # fmt: skip
    why = (
        "Accuracy counts alternate labels as right, F1 does not. Quality lost is the mean of what the chosen expert is "
        "worse than the best one for the true domain, on the scale of experts.yaml."
    )
    return section("Part by part", why, table(head, rows, "figures"))


def _domains(document: Mapping[str, Any]) -> str:
    whole = document["all"]
    rows = [
        (escaped(name), str(d["rows"]), percent(d["precision"]), percent(d["recall"]), f"{d['f1']:.3f}")
        for name, d in whole["per_domain"].items()
    ]
    why = "Rows of the map are labels, columns what the router said; blue is right, red is confused."
    plot = heat_map(document["domains"], whole["confusion"], "Confusion matrix")
    rates = table(("domain", "rows", "precision", "recall", "F1"), rows, "figures")
    maps = [
        figure(
            escaped(name), heat_map(document["domains"], part["confusion"], f"Confusion matrix of {shortened(name)}")
        )
        for name, part in document["parts"].items()
    ]
    more = f"<details><summary>The same, part by part</summary><div class=pair>{''.join(maps)}</div></details>"
    pair = f"<div class=pair>{figure('every row', plot)}<div>{rates}</div></div>"
    return section("Domain by domain", why, pair, more if maps else "")


def _calibration(document: Mapping[str, Any]) -> str:
    why = (
        "Of the prompts that the router is 80 % sure of, 80 % should be right: points on the dashed line. Points are as large "
        "as their bins are full, and faint below 20 rows; the bars along the foot show where the prompts are."
    )
    parts = [("every row", document["all"]), *document["parts"].items()]
    plots = [
        figure(f"{escaped(name)}: ECE {part['ece']:.3f}", reliability(_bins(part), f"Reliability of {shortened(name)}"))
        for name, part in parts
    ]
    return section("Does confidence mean what it says?", why, f"<div class=trio>{''.join(plots)}</div>")


def _bins(part: Mapping[str, Any]) -> list[tuple[float, float, int, float, float]]:
    return [(b["low"], b["high"], b["rows"], b["confidence"], b["accuracy"]) for b in part["reliability"]]


def _baselines(document: Mapping[str, Any]) -> str:
    if not document.get("baselines"):
        return ""
    names = [None, *document["parts"]]  # None is every row
    plots = []
    for name in names:
        own = document["all"] if name is None else document["parts"][name]
        beside = [Bar("this router", own["accuracy"], percent(own["accuracy"]))]
        for key, baseline in document["baselines"].items():
            of_part = baseline["all"] if name is None else baseline["parts"][name]
            beside.append(Bar(BASELINES.get(key, key), of_part["accuracy"], percent(of_part["accuracy"]), kind="other"))
        caption = "every row" if name is None else escaped(name)
        plots.append(figure(caption, bars(beside, f"Accuracy on {shortened(name or 'every row')}")))
    bounces = {"this router": document["conversation"]["bounce"]}
    bounces |= {BASELINES.get(key, key): b["bounce"] for key, b in document["baselines"].items()}
    wholes = {"this router": document["all"]} | {
        BASELINES.get(k, k): b["all"] for k, b in document["baselines"].items()
    }
    rows = [
        (escaped(n), percent(w["accuracy"]), f"{w['f1']:.3f}", f"{w['ece']:.3f}", percent(w["flips"]),
         f"{w['quality_lost']:.4f}", percent(bounces[n]))
        for n, w in wholes.items()
    ]  # fmt: skip
    head = ("every row", "accuracy", "macro-F1", "ECE", "flips", "quality lost", "bounce rate")
    why = "Ways to choose that need no thought, or little, on the same prompts. TF-IDF learned from the router's own corpus."
    return section("Against baselines", why, f"<div class=pair>{''.join(plots)}</div>", table(head, rows, "figures"))


def _robustness(document: Mapping[str, Any]) -> str:
    found = document["robustness"]
    rows = [
        (escaped(n.replace("_", " ")), "made here", str(f["rows"]), percent(f["accuracy_before"]), percent(f["accuracy"]),
         percent(f["flips"]))
        for n, f in found["made"].items()
    ]  # fmt: skip
    rows += [
        (escaped(n.replace("_", " ")), "in the file", str(f["rows"]), "–", "–", percent(f["flips"]))
        for n, f in found["own"].items()
    ]
    if not rows:
        return ""
    why = "The same prompt, written carelessly: how often the router then says another domain (a flip)."
    head = ("written with", "copies", "rows", "accuracy before", "accuracy after", "flips")
    return section("Careless writing", why, table(head, rows, "figures"))


def _conversation(document: Mapping[str, Any]) -> str:
    found = document["conversation"]
    if not found["steps"]:
        return ""
    kinds = {"every conversation": found, "turns of one domain": found["one_domain"], "changing": found["changing"]}
    rows = [
        (n, str(f["conversations"]), str(f["steps"]), percent(f["bounce"]), percent(f.get("followed")))
        for n, f in kinds.items()
        if f["steps"]
    ]
    causes = ", ".join(f"{escaped(cause)} {count}" for cause, count in found["switches"].items())
    why = (
        "Every conversation replayed turn by turn. The bounce rate is the share of steps from one user turn to the next at "
        "which the expert changes; followed is the share of true changes of topic that the expert goes along with."
    )
    counts = table(("conversations", "how many", "steps", "bounce rate", "followed"), rows, "figures")
    return section("Conversations", why, counts, f"<p>Switches by cause: {causes}.</p>" if causes else "")


def _latency(document: Mapping[str, Any]) -> str:
    found = document.get("latency")
    if not found:
        return ""
    timed = {name: f for name, f in found.items() if isinstance(f, Mapping)}
    names = {
        "all": "every prompt", "typical": "40 to 80 tokens", "request": "inside a request",
        "typical_request": "the same, 40 to 80 tokens",
    }  # fmt: skip
    rows = []
    for name, f in timed.items():
        values = (f["p50_ms"], f["p90_ms"], f["p99_ms"])
        label = names.get(name, f"{name} stage")
        rows.append((label, values, " / ".join(f"{v:.3g}" for v in values) + f" ms, n={f['rows']}"))
    cores = "one core" if found["cores"] == 1 else f"{found['cores']} cores"
    why = (
        f"One prompt at a time from one thread, on {cores}: median, 90th and 99th percentile. "
        f"Asked for 64 at once: {found['throughput'] or 0:,.0f} prompts a second."
    )
    return section("How long a decision takes", why, ranges(rows, "Latency by stage"))


def _decisions(document: Mapping[str, Any]) -> str:
    found, plots = document["decisions"], []
    for name, title in (("experts", "expert"), ("reasons", "reason"), ("stages", "stage")):
        rows = [Bar(key.replace("_", " "), share, percent(share)) for key, share in found[name].items()]
        plots.append(figure(f"by {title}", bars(rows, f"Decisions by {title}")))
    return section("What was decided", "The share of all rows.", f"<div class=pair>{''.join(plots)}</div>")


def _slices(document: Mapping[str, Any]) -> str:
    plots = []
    for name in SLICES:
        slices = document["slices"].get(name, {})
        if len(slices) > 1:
            most = dict(list(slices.items())[:MOST_BARS])
            ordered = list(most) if name == "length" else sorted(most, key=lambda key: most[key]["accuracy"])
            rows = [_slice_bar(key, most[key]) for key in ordered]
            note = "" if len(most) == len(slices) else f", the {MOST_BARS} largest of {len(slices)}"
            caption = f"by {name}{' in characters' if name == 'length' else note}"
            plots.append(figure(caption, bars(rows, f"Accuracy by {name}")))
    why = "Accuracy, the weakest first; the thin line is where the true figure lies with 95 % probability."
    return section("Slice by slice", why, f"<div class=columns>{''.join(plots)}</div>") if plots else ""


def _slice_bar(name: str, figures: Mapping[str, Any]) -> Bar:
    note = f"{percent(figures['accuracy'])}, n={figures['rows']}"
    return Bar(name or "(none)", figures["accuracy"], note, figures["low"], figures["high"])


def _errors(document: Mapping[str, Any]) -> str:
    if not document["errors"]:
        return ""
    rows = [
        (percent(e["confidence"]), escaped(e["domain"]), escaped(e["given"]), escaped(e["part"]), escaped(e["text"]))
        for e in document["errors"]
    ]
    why = "Where the router was surest and wrong: a lesson to learn, or a label to doubt."
    return section(
        "The most confident errors", why, table(("confidence", "label", "given", "part", "prompt"), rows, "errors")
    )
