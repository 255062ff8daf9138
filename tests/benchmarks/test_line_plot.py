from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.benchmarks.line_plot import COLOURS, HEIGHT, LINE, WIDTH, Frame, Point, line_plot

SVG = "{http://www.w3.org/2000/svg}"
SHARES = st.tuples(*[st.floats(0, 1)] * 3).map(sorted)
LINES = st.lists(
    st.lists(SHARES, min_size=1, max_size=4).map(
        lambda line: [Point(5.0 * 2**i, share, least, most) for i, (least, share, most) in enumerate(line)]
    ),
    min_size=1,
    max_size=len(COLOURS),
)


def drawn(lines: Mapping[str, Sequence[Point]], title: str = "a title") -> ET.Element:
    return ET.fromstring(line_plot(lines, title, "right", "number"))  # noqa: S314 - made a line above


@given(LINES)
@settings(max_examples=40, deadline=None)
def test_every_point_and_reach_is_inside_and_more_is_higher_and_further_right(lines: list[list[Point]]) -> None:
    points = [point for line in lines for point in line]
    root = drawn({f"line {i}": line for i, line in enumerate(lines)})
    at = [(float(c.get("cx", "")), float(c.get("cy", ""))) for c in root.iter(f"{SVG}circle")]
    assert len(at) == len(points)
    assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in at)
    reaches = [line for line in root.iter(f"{SVG}line") if "reach" in (line.get("class") or "")]
    assert all(0 < float(r.get("y1", "")) <= float(r.get("y2", "")) < HEIGHT for r in reaches)
    frame = Frame.of(points)
    by_share = sorted(points, key=lambda p: p.share)
    assert [frame.y(p.share) for p in by_share] == sorted((frame.y(p.share) for p in points), reverse=True)
    by_number = sorted(points, key=lambda p: p.number)
    assert [frame.x(p.number) for p in by_number] == sorted(frame.x(p.number) for p in points)


@given(LINES)
@settings(max_examples=40, deadline=None)
def test_no_name_stands_upon_another(lines: list[list[Point]]) -> None:
    root = drawn({f"line {i}": line for i, line in enumerate(lines)})
    names = [t for t in root.iter(f"{SVG}text") if (t.text or "").startswith("line ")]
    assert len(names) == len(lines)
    heights = sorted(float(name.get("y", "")) for name in names)
    assert all(below - above > LINE - 0.2 for above, below in pairwise(heights))


def test_names_are_text_and_a_point_says_its_figures() -> None:
    root = drawn({"a < b": [Point(5, 0.5, 0.25, 0.75), Point(50, 0.9, 0.8, 1)]}, 'a "title"')
    texts = {text.text for text in root.iter(f"{SVG}text")}
    assert {"a < b", 'a "title"', "right", "number", "5", "50", "100%"} <= texts
    assert [title.text for title in root.iter(f"{SVG}title")] == [
        "a < b, 5: 50% (25% to 75%)",
        "a < b, 50: 90% (80% to 100%)",
    ]
