from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.dataset import Row
from router.measuring.evaluation import Measurement
from router.measuring.report import TARGETS, About, page, percent, shown
from router.measuring.requirements import Requirement
from tests.fakes.classifiers import worded_router
from tests.fakes.fleets import fleet

ABOUT = About("rows.jsonl", "today")
HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</td></table><h1>gone",
    "\"'><svg onload=x>",
    "\x00\x1b[2J\ud800\u202e",
    "<!--",
)


class Tags(HTMLParser):
    """Every start tag of a page, its attributes' names, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def rows(text: str = "code", name: str = "n") -> list[Row]:
    return [
        Row(f"code {text}", "math", part=name, language=name, style=name, source=name, id=name),
        Row("code", "code", part="plain", source="other", language="en"),
        Row("math?", "math", part="plain", tags=frozenset({"lower"}), origin=name),
        Row("code", "code", turns=("math", "code"), turn_domains=("math", "code")),
    ]


def document(text: str = "code", name: str = "n", quick: bool = False) -> dict[str, Any]:
    router = worded_router(fleet({"coder": {"domains": ["code"]}, "counter": {"domains": ["math"]}}))
    return Measurement(router, rows(text, name)).document(rows(), quick)


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return document()


def test_the_page_is_one_file_that_loads_and_runs_nothing(whole: dict[str, Any]) -> None:
    text = page(whole, ABOUT)
    tags = Tags(text)
    assert not {"script", "link", "img", "iframe", "object", "form"} & set(tags.tags)
    assert not {"src", "href"} & tags.attributes
    assert not [name for name in tags.attributes if name.startswith("on")]
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_the_page_has_every_section(whole: dict[str, Any]) -> None:
    titles = re.findall("<h2>(.*?)</h2>", page(whole, ABOUT))
    assert titles == [
        "Part by part", "Domain by domain", "Does confidence mean what it says?", "Against baselines", "Careless writing",
        "Conversations", "How long a decision takes", "What was decided", "Slice by slice", "The most confident errors",
    ]  # fmt: skip


def test_a_quick_evaluation_has_a_page_without_what_was_not_measured() -> None:
    text = page(document(quick=True), ABOUT)
    assert "Against baselines" not in text
    assert "How long" not in text
    assert "Part by part" in text


def test_a_part_called_all_stands_beside_every_row(whole: dict[str, Any]) -> None:
    named = whole | {"parts": {"all": whole["parts"]["plain"]}}
    named["baselines"] = {n: b | {"parts": {"all": b["parts"]["plain"]}} for n, b in whole["baselines"].items()}
    text = page(named, ABOUT)
    assert f"<td><bdi>every row</bdi></td><td>{whole['all']['rows']}</td>" in text
    assert f"<td><bdi>all</bdi></td><td>{whole['parts']['plain']['rows']}</td>" in text
    assert (text.count("Accuracy on every row"), text.count("Accuracy on all")) == (1, 1)


def test_headline_figures_stand_beside_their_targets(whole: dict[str, Any]) -> None:
    text = Tags(page(whole, ABOUT)).text
    assert "plain f1" in text
    assert "at least 0.950" in text
    figure = whole["parts"]["plain"]["accuracy"]
    missed = Tags(page(whole, ABOUT, [Requirement("plain.accuracy", True, 1.01)])).text
    assert f"{percent(figure)}✗ missed: at least 101.0 %" in missed
    met = Tags(page(whole, ABOUT, [Requirement("plain.accuracy", True, figure)])).text
    assert f"✓ met: at least {percent(figure)}" in met


def test_a_requirement_stands_in_place_of_the_target_it_names(whole: dict[str, Any]) -> None:
    text = Tags(page(whole, ABOUT, [Requirement("plain.f1", True, 0.5)])).text
    assert text.count("plain f1") == 1
    assert "at least 0.500" in text
    assert "at least 0.950" not in text


def test_the_targets_can_be_read() -> None:
    assert all(Requirement.parse(target) for target in TARGETS)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_text_of_the_file_becomes_markup(hostile: str) -> None:
    plain, text = (
        Tags(page(document(quick=True), ABOUT)),
        page(document(hostile, hostile, quick=True), About(hostile, hostile)),
    )
    found = Tags(text)
    assert sorted(set(found.tags)) == sorted(set(plain.tags) | ({"title"} & set(found.tags)))
    assert found.attributes <= plain.attributes
    assert len([t for t in found.tags if t != "title"]) == len([t for t in plain.tags if t != "title"])
    text.encode("utf-8")
    assert "\x00" not in text
    assert "\x1b" not in text


@given(st.text(alphabet=st.characters(codec=None), min_size=1, max_size=12))
@settings(deadline=None, max_examples=15)
def test_errors_are_shown_escaped(whole: dict[str, Any], text: str) -> None:
    changed = whole | {"errors": [error | {"text": text} for error in whole["errors"]]}
    assert sorted(Tags(page(changed, ABOUT)).tags) == sorted(Tags(page(whole, ABOUT)).tags)


def test_errors_are_told_with_what_was_given(whole: dict[str, Any]) -> None:
    text = page(whole, ABOUT)
    assert "code code" in text
    assert percent(whole["errors"][0]["confidence"]) in text


def test_many_slices_are_the_largest_and_say_so(whole: dict[str, Any]) -> None:
    figures = next(iter(whole["slices"]["language"].values()))
    many = whole | {"slices": {"language": {f"l{i}": figures for i in range(45)}}}
    assert "the 30 largest of 45" in page(many, ABOUT)


def test_figures_are_shown_in_their_units() -> None:
    assert shown("latency.all.p50_ms", 0.1234) == "0.123 ms"
    assert shown("latency.throughput", 1234.5) == "1,234"
    assert shown("plain.f1", 0.9) == "0.900"
    assert shown("hard.accuracy", 0.945) == "94.5 %"
    assert percent(None) == "–"
