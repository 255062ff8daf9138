"""Plots as inline SVG: no script, no file beside the page. Colours are the page's classes, so that they follow light and dark."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 520
ROW = 24
LABEL = 164
NOT_TEXT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff]")


@dataclass(frozen=True)
class Bar:
    """One bar: `value` and its uncertainty from `low` to `high` are 0 to 1; `kind` is a class of the page's style."""

    label: str
    value: float
    note: str
    low: float | None = None
    high: float | None = None
    kind: str = "bar"


def escaped(text: str) -> str:
    """Text for the page: it can neither be markup nor turn the direction of the line around it."""
    return f"<bdi>{cleaned(text)}</bdi>"


def cleaned(text: str) -> str:
    """Text for an attribute or a picture: no markup, no control characters, no halves of characters."""
    readable = NOT_TEXT.sub("\N{REPLACEMENT CHARACTER}", text).encode("utf-8", "replace").decode()
    return html.escape(readable)


def bars(rows: Sequence[Bar], name: str) -> str:
    """Horizontal bars from 0 to 1, each with its label before it and its note behind it."""
    top, right = 20, 130
    span = WIDTH - LABEL - right
    height = top + ROW * len(rows)
    parts = [_text(LABEL + span * x / 4, 12, f"{25 * x} %", "tick", "middle") for x in range(5)]
    parts += [_line(LABEL + span * x / 4, top - 3, LABEL + span * x / 4, height, "grid") for x in range(5)]
    for i, row in enumerate(rows):
        y = top + ROW * i
        parts.append(_text(LABEL - 8, y + 15, shortened(row.label), "label", "end", row.label))
        parts.append(_box(LABEL, y + 4, span * row.value, ROW - 8, row.kind))
        if row.low is not None and row.high is not None:
            parts.append(_line(LABEL + span * row.low, y + 12, LABEL + span * row.high, y + 12, "whisker"))
        parts.append(_text(LABEL + span + 8, y + 15, row.note, "note"))
    return _svg(WIDTH, height, name, parts)


def heat_map(domains: Sequence[str], counts: Sequence[Sequence[int]], name: str) -> str:
    """A confusion matrix: rows are labels, columns what was given, each cell shaded by its share of the row."""
    cell = max(34, min(84, 400 // max(1, len(domains))))
    left, top = 90, 40
    parts = [_text(left + cell * len(domains) / 2, 13, "was given", "axis", "middle")]
    for i, domain in enumerate(domains):
        parts.append(_text(left + cell * (i + 0.5), top - 7, shortened(domain, cell // 7), "label", "middle", domain))
        parts.append(_text(left - 8, top + cell * (i + 0.5) + 4, shortened(domain, 12), "label", "end", domain))
        whole = sum(counts[i]) or 1
        for j, count in enumerate(counts[i]):
            x, y, share = left + cell * j, top + cell * i, count / whole
            opacity = f' fill-opacity="{0.04 + 0.96 * share:.3f}"'
            parts.append(_box(x + 1, y + 1, cell - 2, cell - 2, "hit" if i == j else "miss", opacity))
            strong = " strong" if share > 0.5 else ""
            parts.append(_text(x + cell / 2, y + cell / 2 + 1, str(count), f"count{strong}", "middle"))
            parts.append(_text(x + cell / 2, y + cell / 2 + 15, f"{share:.1%}", f"share{strong}", "middle"))
    return _svg(left + cell * len(domains) + 4, top + cell * len(domains) + 4, name, parts)


def reliability(bins: Sequence[tuple[float, float, int, float, float]], name: str) -> str:
    """Accuracy against confidence. A bin is (low, high, rows, confidence, accuracy); on the diagonal confidence is honest."""
    size, left, top = 300, 64, 10
    most = max((rows for _, _, rows, _, _ in bins), default=1)

    def x(value: float) -> float:
        return left + size * value

    def y(value: float) -> float:
        return top + size * (1 - value)

    parts = [_line(left, y(v / 4), left + size, y(v / 4), "grid") for v in range(5)]
    parts += [_text(left - 6, y(v / 4) + 4, f"{25 * v} %", "tick", "end") for v in range(5)]
    parts += [_text(x(v / 4), top + size + 16, f"{25 * v} %", "tick", "middle") for v in range(5)]
    for low, high, rows, _, _ in bins:  # how many rows a bin has, along the foot
        tall = 60 * rows / most
        parts.append(_box(x(low) + 1, y(0) - tall, size * (high - low) - 2, tall, "crowd"))
    parts.append(_line(x(0), y(0), x(1), y(1), "diagonal"))
    for _, _, rows, confidence, accuracy in bins:
        kind = "point" if rows >= 20 else "point faint"
        radius = 3 + 6 * math.sqrt(rows / most)
        about = f"{rows} rows: confidence {confidence:.1%}, right {accuracy:.1%}"
        parts.append(_line(x(confidence), y(confidence), x(confidence), y(accuracy), "gap"))
        parts.append(
            f'<circle class="{kind}" cx="{x(confidence):.1f}" cy="{y(accuracy):.1f}" r="{radius:.1f}">'
            f"<title>{html.escape(about)}</title></circle>"
        )
    parts.append(_text(x(0.5), top + size + 34, "confidence", "axis", "middle"))
    turned = f'<g transform="rotate(-90 12 {y(0.5):.0f})">{_text(12, y(0.5), "right", "axis", "middle")}</g>'
    return _svg(left + size + 22, top + size + 40, name, [*parts, turned])


def ranges(rows: Sequence[tuple[str, Sequence[float], str]], name: str) -> str:
    """On a logarithmic scale, each row's values (above 0) as dots joined by a line, such as three percentiles."""
    top, right = 20, 190
    span = WIDTH + 80 - LABEL - right
    values = [value for _, of_row, _ in rows for value in of_row if value > 0] or [1.0]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)) + 1e-9)
    high = max(high, low + 1)
    height = top + ROW * len(rows)

    def x(value: float) -> float:
        return LABEL + span * (math.log10(max(value, 10.0**low)) - low) / (high - low)

    parts = [_text(x(10.0**p), 12, f"{10.0**p:g} ms", "tick", "middle") for p in range(low, high + 1)]
    parts += [_line(x(10.0**p), top - 3, x(10.0**p), height, "grid") for p in range(low, high + 1)]
    for i, (label, of_row, note) in enumerate(rows):
        y = top + ROW * i + 12
        parts.append(_text(LABEL - 8, y + 4, shortened(label), "label", "end", label))
        parts.append(_line(x(min(of_row)), y, x(max(of_row)), y, "range"))
        parts += [f'<circle class="dot" cx="{x(value):.1f}" cy="{y}" r="4.5"/>' for value in of_row]
        parts.append(_text(LABEL + span + 14, y + 4, note, "note"))
    return _svg(WIDTH + 80, height, name, parts)


def shortened(text: str, most: int = 18) -> str:
    return text if len(text) <= most else text[: max(1, most - 1)] + "…"


def _svg(width: float, height: float, name: str, parts: Sequence[str]) -> str:
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" style="max-width:{width:.0f}px"'
    return f'<svg {size} role="img" aria-label="{cleaned(name)}">{"".join(parts)}</svg>'


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start", title: str = "") -> str:
    """SVG knows no <bdi>: the page's style isolates the text instead."""
    more = f"<title>{cleaned(title)}</title>" if title and title != text else ""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{cleaned(text)}{more}</text>'


def _box(x: float, y: float, width: float, height: float, kind: str, more: str = "") -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" height="{height:.1f}" rx="2"{more}/>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
