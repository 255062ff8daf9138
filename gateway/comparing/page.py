"""A comparison as one HTML page: the figures first, then every prompt with its answers side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from router.measuring.pages import document_page, figure, section, table
from router.measuring.plots import Bar, bars, escaped, ranges, shortened

Document = Mapping[str, Any]
STYLE = """
.answers{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,340px),1fr));gap:12px;align-items:start}
.answers{margin:8px 0 28px}.answer{background:var(--card);border-left:4px solid var(--pale);border-radius:6px}
.answer{padding:10px 12px;min-width:0}.answer.right{border-color:var(--green)}
.answer.wrong,.answer.failed{border-color:var(--red)}.meta{color:var(--soft);font-size:13px}.who{font-weight:600}
.answer pre,.asked{white-space:pre-wrap;overflow-wrap:anywhere;font:13px/1.45 ui-monospace,monospace;margin:6px 0}
.answer pre,.asked{max-height:420px;overflow:auto}.right .grade{color:var(--green)}h3{font-size:15px;margin:22px 0 2px}
.wrong .grade,.failed .grade{color:var(--red)}
"""


def page(document: Document, source: str) -> str:
    """`source` is the name of the file of prompts."""
    targets = document["targets"]
    count = len(document["prompts"])
    head = f"<h1>{' against '.join(escaped(name) for name in targets)}</h1>"
    head += (
        f"<p class=sub>{count} prompt{'s' * (count != 1)} of {escaped(source)}, asked {escaped(document['when'])}</p>"
    )
    parts = [head, _table(targets), _plots(targets), _prompts(document)]
    return document_page("Experts side by side", *parts, style=STYLE)


def _table(targets: Mapping[str, Any]) -> str:
    rows = [(escaped(name), *map(escaped, cells_of(figures))) for name, figures in targets.items()]
    why = (
        "TTFT is the time to the first token, with the gateway's own; tokens/s the pace after it; USD/1000 what a thousand such "
        "answers cost. Answers that another expert gave in an expert's place are left out of its figures."
    )
    return section("In figures", why, table(("asked for", *HEAD), rows, "figures"))


HEAD = ("whole", "failed", "stood in", "TTFT p50", "p95", "tokens/s", "tokens", "USD/1000", "right")


def cells_of(figures: Mapping[str, Any]) -> tuple[str, ...]:
    """The figures of one target as text, one for each of HEAD."""
    first, pace, quality = figures["first_token"], figures["tokens_per_second"], figures["quality"].get("all")
    return (
        str(figures["answered"]),
        str(figures["failed"]),
        str(figures["stood_in"]),
        _seconds(first and first["p50"]),
        _seconds(first and first["p95"]),
        "–" if pace is None else f"{pace['p50']:.1f}",
        str(figures["output_tokens"]),
        _usd(figures["cost_usd"] and 1000 * figures["cost_usd"] / figures["priced"]),
        "–" if quality is None else f"{quality['right']:.0f} of {quality['rows']:.0f}",
    )


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.2f} s"


def _usd(value: float | None) -> str:
    """Three figures of it, never as a power of ten."""
    if value is None:
        return "–"
    digits = 2 - math.floor(math.log10(value)) if value > 0 else 0
    return f"{value:.{min(max(digits, 0), 12)}f}"


def _plots(targets: Mapping[str, Any]) -> str:
    plots = []
    domains = dict.fromkeys(domain for figures in targets.values() for domain in figures["quality"])
    for domain in domains:
        graded = {n: f["quality"][domain] for n, f in targets.items() if domain in f["quality"]}
        rows = [
            Bar(name, q["mean"], f"{q['right']:.0f} of {q['rows']:.0f}", q["low"], q["high"])
            for name, q in graded.items()
        ]
        caption = "right, every domain" if domain == "all" else f"right, {shortened(domain)}"
        plots.append(figure(escaped(caption), bars(rows, caption)))
    timed = [(n, f["first_token"]) for n, f in targets.items() if f["first_token"]]
    if timed:
        waits = [
            (name, [1000 * t["p50"], 1000 * t["p95"]], f"{_seconds(t['p50'])}, {_seconds(t['p95'])}")
            for name, t in timed
        ]
        plots.append(figure("time to first token, median and 95th percentile", ranges(waits, "TTFT by target")))
    return section(
        "At a glance", "Whiskers hold the true share with 95 % probability.", f"<div class=pair>{''.join(plots)}</div>"
    )


def _prompts(document: Document) -> str:
    shown = [
        f"<h3>{escaped(prompt['id'])} <span class=meta>{escaped(prompt['domain'])}</span></h3>"
        f"<div class=asked>{escaped(prompt['text'])}</div>"
        f"<div class=answers>{''.join(_answer(name, given) for name, given in prompt['answers'].items())}</div>"
        for prompt in document["prompts"]
    ]
    return section("Prompt by prompt", "Asked last in each conversation, and what came back.", *shown)


def _answer(target: str, given: Mapping[str, Any]) -> str:
    kind, grade = _graded(given)
    who = escaped(target) if given["expert"] in ("", target) else f"{escaped(target)} → {escaped(given['expert'])}"
    facts: Sequence[str] = [
        f"TTFT {_seconds(given['first_token'])}",
        f"{given['output_tokens'] if given['output_tokens'] is not None else '–'} tokens",
        "" if given["tokens_per_second"] is None else f"{given['tokens_per_second']:.1f} tokens/s",
        "" if given["cost_usd"] is None else f"{_usd(given['cost_usd'])} USD",
    ]
    thought = given["reasoning"]
    more = f"<details><summary>its thoughts</summary><pre>{escaped(thought)}</pre></details>" if thought else ""
    meta = f"<div class=meta>{', '.join(filter(None, facts))}</div>"
    head = f"<div><span class=who>{who}</span> <span class=grade>{escaped(grade)}</span></div>{meta}"
    return f"<div class='answer {kind}'>{head}{more}<pre>{escaped(given['text'])}</pre></div>"


def _graded(given: Mapping[str, Any]) -> tuple[str, str]:
    """The class of the box, and the word on the answer."""
    if given["error"]:
        return "failed", f"failed: {given['error']}"
    if given["grade"] is None:
        return "", given["why"]
    return ("right", "right") if given["grade"] else ("wrong", f"wrong: {given['why']}")
