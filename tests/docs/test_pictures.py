from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.docs.pictures import CHANCES, PICTURES, QUALITIES, expected


@pytest.mark.parametrize("file", PICTURES, ids=lambda file: file.name)
def test_a_picture_is_what_is_drawn(file: Path) -> None:
    drawn = PICTURES[file]()
    assert file.read_text("utf-8") == drawn
    ElementTree.fromstring(drawn)  # noqa: S314 - our own


def test_the_arithmetic_of_the_picture_is_the_router_s() -> None:
    assert sum(CHANCES.values()) == pytest.approx(1)
    assert {expert: round(expected(expert), 2) for expert in QUALITIES} == {
        "coder": 0.87,
        "mathematician": 0.84,
        "general": 0.75,
    }
