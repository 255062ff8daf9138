from __future__ import annotations

import io
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from tests.benchmarks.serving import report
from tests.benchmarks.serving.measuring import Run
from tests.benchmarks.serving.results import results
from tests.benchmarks.serving.test_results import three_rounds


@pytest.fixture
def noisy() -> Run:
    return three_rounds()


def test_the_table_tells_every_way_and_what_failed(noisy: Run) -> None:
    console = Console(width=190, record=True, file=io.StringIO())
    for part in report.terminal(results(noisy)):
        console.print(part)
    told = console.export_text()
    for words in (
        "vllm-router 0.1.17",
        "(3 failed)",
        "0.50 [0.50–0.50]",
        "static 30 (75.0%)",
        "25 [25–25] %",
        "auto makes 0.75 [0.75–0.75]",
    ):
        assert words in told


def test_the_document_keeps_what_is_around_the_figures(noisy: Run) -> None:
    document = f"before\n{report.START}\nold\n{report.END}\nafter\n"
    once = report.inserted(document, report.markdown(results(noisy)))
    assert once.startswith("before\n")
    assert once.endswith("\nafter\n")
    assert "old" not in once
    assert report.inserted(once, report.markdown(results(noisy))) == once
    with pytest.raises(ValueError, match="no place"):
        report.inserted("nothing", "x")


def test_the_picture_has_a_bar_for_each_way(noisy: Run) -> None:
    drawn = ET.fromstring(report.picture(results(noisy), 32))  # noqa: S314 - ours
    wide = [float(r.attrib["width"]) for r in drawn.iter("{http://www.w3.org/2000/svg}rect")][1:]
    assert len(wide) == 4
    straight, router, by_name, _ = wide
    assert straight < router < by_name
