from __future__ import annotations

import xml.etree.ElementTree as ET
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.benchmarks.scatter import HEIGHT, WIDTH, Look, Point, Scale, placed, scatter

LOOKS = {"one": Look("circle", "#000", "#fff"), "two": Look("star", "#00f", "#0ff")}
POINTS = st.lists(
    st.builds(
        Point,
        microseconds=st.floats(20, 90_000),
        right=st.floats(0.5, 0.99),
        label=st.sampled_from(["linear", "kernel ridge", "20 neighbours"]),
        family=st.sampled_from(["one", "two"]),
        joined=st.booleans(),
        best=st.booleans(),
    ),
    min_size=1,
    max_size=12,
)


@given(POINTS)
@settings(max_examples=40, deadline=None)
def test_no_name_stands_upon_another_or_outside(points: list[Point]) -> None:
    boxes = placed(points, Scale.of(points))
    assert not any(a.meets(b) for a, b in combinations(boxes, 2))
    assert all(box.left > 0 and box.right < WIDTH and box.top > 0 and box.bottom < HEIGHT for box in boxes)


@given(POINTS)
@settings(max_examples=40, deadline=None)
def test_quicker_is_further_left_and_righter_is_higher(points: list[Point]) -> None:
    scale = Scale.of(points)
    by_time = sorted(points, key=lambda p: p.microseconds)
    assert [scale.x(p.microseconds) for p in by_time] == sorted(scale.x(p.microseconds) for p in points)
    by_right = sorted(points, key=lambda p: -p.right)
    assert [scale.y(p.right) for p in by_right] == sorted(scale.y(p.right) for p in points)


def test_names_are_text_and_the_line_goes_through_the_best() -> None:
    points = [
        Point(100, 0.7, "a < b", "one", best=True),
        Point(3000, 0.9, "c & d", "two", joined=True, best=True),
        Point(4000, 0.8, "e", "two", joined=True),
    ]
    root = ET.fromstring(scatter(points, LOOKS, 'a "title"', "right", "quick"))  # noqa: S314 - made a line above
    texts = ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"a < b", "c & d", "e", "one", "two", 'a "title"'} <= set(texts)
    lines = {
        line.get("class"): line.get("points", "").split() for line in root.iter("{http://www.w3.org/2000/svg}polyline")
    }
    assert set(lines) == {"front", "join s1"}
    assert len(lines["front"]) == len(lines["join s1"]) == 2
    assert set(lines["front"]) & set(lines["join s1"]) != set()  # the one point that is on both
