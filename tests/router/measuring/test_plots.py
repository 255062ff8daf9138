from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.measuring.plots import Bar, bars, escaped, heat_map, ranges, reliability, shortened

HOSTILE = st.text(alphabet=st.characters(codec=None), max_size=30) | st.sampled_from(
    ["<script>alert(1)</script>", "\"' onload=x", "&lt;", "]]>", "\x00\x1b[31m", "\ud800", "\u202eabc", "</svg>"]
)
SHARE = st.floats(0, 1)


def drawn(svg: str) -> ET.Element:
    """The picture, read as strict XML."""
    return ET.fromstring(svg)  # noqa: S314


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in drawn(svg).iter("text")]


@given(HOSTILE)
def test_text_has_no_markup_and_no_control_characters_left(text: str) -> None:
    inner = escaped(text).removeprefix("<bdi>").removesuffix("</bdi>")
    assert not re.search(r"[<>\"'\x00-\x08\x0b-\x1f]", inner)
    inner.encode("utf-8")


def test_text_reads_as_it_was() -> None:
    assert ET.fromstring(escaped("a < b & 'c'")).text == "a < b & 'c'"  # noqa: S314


@given(st.lists(st.tuples(HOSTILE, SHARE, HOSTILE), max_size=4), HOSTILE)
def test_bars_are_a_picture_whatever_they_are_called(rows: list[tuple[str, float, str]], name: str) -> None:
    root = drawn(bars([Bar(label, value, note, 0.0, 1.0) for label, value, note in rows], name))
    assert {element.tag for element in root.iter()} <= {"svg", "text", "title", "rect", "line"}
    assert len(list(root.iter("rect"))) == len(rows)
    assert "script" not in {key for element in root.iter() for key in element.attrib}


def test_a_bar_is_as_long_as_its_value() -> None:
    boxes = list(drawn(bars([Bar("a", 0.25, ""), Bar("b", 0.5, ""), Bar("c", 0.0, "")], "n")).iter("rect"))
    quarter, half, nothing = (float(box.attrib["width"]) for box in boxes)
    assert nothing == 0
    assert half == pytest.approx(2 * quarter, abs=0.2)
    assert quarter > 20


def test_the_heat_map_has_every_count_and_shades_by_share_of_the_row() -> None:
    svg = heat_map(("code", "math"), [[3, 1], [0, 0]], "n")
    assert {"3", "1", "0", "75.0%", "25.0%", "code", "math"} <= set(texts(svg))
    shades = [float(box.attrib["fill-opacity"]) for box in drawn(svg).iter("rect")]
    assert shades[0] > shades[1] > shades[2] == shades[3]
    assert [box.attrib["class"] for box in drawn(svg).iter("rect")] == ["hit", "miss", "miss", "hit"]


def test_points_of_the_diagram_are_higher_the_more_is_right() -> None:
    svg = reliability([(0.4, 0.5, 30, 0.45, 0.2), (0.8, 0.9, 60, 0.85, 0.9)], "n")
    low, high = drawn(svg).iter("circle")
    assert float(low.attrib["cy"]) > float(high.attrib["cy"])
    assert float(low.attrib["cx"]) < float(high.attrib["cx"])
    assert drawn(reliability([], "n")).tag == "svg"


def test_ranges_are_on_a_logarithmic_scale() -> None:
    dots = list(drawn(ranges([("a", (0.1, 1.0, 10.0), "")], "n")).iter("circle"))
    first, second, third = (float(dot.attrib["cx"]) for dot in dots)
    assert second - first == pytest.approx(third - second, abs=0.2)
    assert drawn(ranges([("a", (0.0, 5.0), "")], "n")).tag == "svg"


def test_long_labels_are_shortened_and_told_in_full_by_a_title() -> None:
    long = "x" * 50
    svg = bars([Bar(long, 0.5, "")], "n")
    assert shortened(long) in texts(svg)
    assert long in [title.text for title in drawn(svg).iter("title")]
