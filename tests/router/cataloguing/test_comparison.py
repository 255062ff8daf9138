from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from itertools import combinations
from typing import Any

import pytest

from router.cataloguing.catalog import Catalog, load_catalog
from router.cataloguing.comparison import FRAME, Comparison
from router.errors import CatalogError
from router.measuring.scatter import Dot, placed
from tests.fakes.catalogs import PAGE, catalog, model

SVG = "{http://www.w3.org/2000/svg}"


def priced(name: str, score: float, price: float | None, **more: Any) -> Any:
    scores = [{"benchmark": "HumanEval", "score": score, "source": PAGE, "date": "2024-08"}] if score else []
    cost = None if price is None else {"input": price, "output": price}
    return model(name=f"A/{name}", scores=scores, price=cost, **more)


MODELS = catalog(
    one=priced("one", 90, 0.1),
    two=priced("two", 60, 1.0, tuned_from=None),
    three=priced("three", 30, 3.0),
    four=priced("four", 20, 0.5, note="not named"),
    poor=priced("poor", 10, None),
    mute=priced("mute", 0, 0.2),
    free=priced("free", 15, 0.0),
)


def texts(svg: str) -> dict[str, ET.Element]:
    root = ET.fromstring(svg)  # noqa: S314 - made a line above
    return {"".join(text.itertext()): text for text in root.iter(f"{SVG}text")}


def test_the_picture_names_every_model_that_can_be_drawn_and_those_compared_are_strong() -> None:
    found = texts(Comparison(MODELS, ["one", "two"], "code").svg())
    assert {"one", "two", "three", "four"} <= set(found)
    assert not {"poor", "mute", "free"} & set(found)
    assert [name for name in ("one", "two", "three", "four") if "best" in str(found[name].get("class"))] == [
        "one",
        "two",
    ]
    assert [name for name in ("one", "two", "three", "four") if "dim" in str(found[name].get("class"))] == [
        "three",
        "four",
    ]
    assert "Quality against price: code" in found
    assert any("HumanEval, MBPP" in text for text in found)


def test_dearer_is_further_right_and_better_is_higher() -> None:
    svg = ET.fromstring(Comparison(MODELS, ["one", "two"], None).svg())  # noqa: S314 - made here
    places = {}
    for mark in svg.iter(f"{SVG}polygon"):
        about = "".join(mark.itertext()).partition(":")[0]
        x, y = str(mark.get("points")).split()[0].split(",")
        places[about] = (float(x), float(y))
    assert places["one"][0] < places["four"][0] < places["two"][0] < places["three"][0]
    assert places["one"][1] < places["two"][1] < places["three"][1] < places["four"][1]


def test_what_cannot_be_drawn_is_told_with_what_lacks() -> None:
    comparison = Comparison(MODELS, ["one", "poor", "mute", "free"])
    assert comparison.not_drawn() == {"poor": "no price", "mute": "no score to compare by", "free": "no price"}
    assert "<li><bdi>poor</bdi>: <bdi>no price</bdi></li>" in comparison.page()
    nothing = Comparison(MODELS, ["poor", "mute"])
    with pytest.raises(CatalogError, match="there is nothing to draw: poor has no price; mute has no score"):
        nothing.svg()
    assert "<svg" not in nothing.page()
    assert "<td><bdi>A/poor</bdi></td>" in nothing.page()


def test_the_table_has_a_cell_for_each_model_and_no_row_of_dashes() -> None:
    rows = dict(Comparison(MODELS, ["one", "two", "mute"]).rows())
    assert rows["hub id"] == ["A/one", "A/two", "A/mute"]
    assert rows["tuned from"] == ["Maker/Base-7B", "—", "Maker/Base-7B"]
    assert rows["HumanEval"] == ["90 (2024-08)", "60 (2024-08)", "—"]
    assert rows["parameters"] == ["8.03B"] * 3
    assert rows["GB at bf16"][0] == "20.3 / 36.5 (published)"
    assert rows["price in / out"] == ["0.1 / 0.1 (Host)", "1 / 1 (Host)", "0.2 / 0.2 (Host)"]
    assert rows["quality"] == ["75 by HumanEval", "65 by HumanEval", "—"]
    assert "limits of use" not in rows
    assert "finetuning code" not in rows
    names = list(rows)
    assert names.index("maker") < names.index("licence") < names.index("quality") < names.index("HumanEval")


def test_the_document_is_json_with_a_model_each() -> None:
    document = Comparison(MODELS, ["two", "poor"], "code").described()
    assert json.loads(json.dumps(document)) == document
    assert [one["id"] for one in document["data"]] == ["two", "poor"]
    assert (document["task"], document["not_drawn"]) == ("code", {"poor": "no price"})


def test_nothing_that_a_catalogue_says_is_markup() -> None:
    hostile = "<script>alert(1)</script>&\"'"
    models = dict(MODELS.models)
    models["one"] = priced(
        "one", 90, 0.1, maker=hostile, licence={"id": hostile, "kind": "research", "limits": hostile}
    )
    comparison = Comparison(Catalog(models), ["one", "two"])
    assert "<script" not in comparison.page()
    assert "<script" not in comparison.svg()
    ET.fromstring(comparison.svg())  # noqa: S314 - made here


def test_the_whole_catalogue_is_drawn_with_no_name_upon_another() -> None:
    models = load_catalog()
    keys = [key for key in models.models if key not in Comparison(models, list(models.models)).not_drawn()]
    assert len(keys) > 10
    svg = ET.fromstring(Comparison(models, keys[:3]).svg())  # noqa: S314 - made here
    named = [text for text in svg.iter(f"{SVG}text") if str(text.get("class")).startswith("t") and text.text in keys]
    assert len(named) == len(keys)


def test_names_of_a_crowd_stand_apart() -> None:
    dots = [Dot(300 + 9 * i, 300 + 7 * (i % 3), f"model-{i}", "f", "", strong=i < 2) for i in range(12)]
    boxes = placed(dots, FRAME)
    assert not any(a.meets(b) for a, b in combinations(boxes, 2))
    assert all(FRAME.holds(box) for box in boxes)
