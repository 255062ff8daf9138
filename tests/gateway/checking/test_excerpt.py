"""The line that a finding is about, and the mark under it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from gateway.checking.excerpt import Excerpt, excerpt


@pytest.mark.parametrize(("line", "spot", "marked"), [
    ("  modle: Qwen/Qwen3", "modle", "modle"),
    ("  timeouts: {total: 60 seconds}", "60", "60 seconds"),
    ("  vllm: [10.0.0.5:8000/v1, x]", "10.", "10.0.0.5:8000/v1"),
    ("  say: 'two words' # why", "'two", "'two words'"),
    ("  api_key: ${CODER_KEY:-}", "${", "${CODER_KEY:-}"),
    ("  model: two words  # why", "two", "two words"),
    ("  - [", "[", "["),
    ("  値段: {入力: 高い}", "高い", "高い"),
])  # fmt: skip
def test_the_mark_is_under_the_whole_of_what_is_meant(line: str, spot: str, marked: str) -> None:
    found = excerpt([line], 1, line.index(spot) + 1)
    assert found == Excerpt(line, cell_len(line[: line.index(spot)]), cell_len(marked))


def test_a_long_line_is_cut_around_the_spot() -> None:
    line = "x" * 300 + " here " + "y" * 300
    found = excerpt([line], 1, 302, width=60)
    assert found is not None
    assert found.text[found.indent : found.indent + 4] == "here"
    assert found.text[0] == found.text[-1] == "…"
    assert len(found.text) <= 62


def test_control_characters_reach_no_terminal() -> None:
    found = excerpt(["a:\t\x1b[2J\x07b"], 1, 4)
    assert found is not None
    assert found.text == "a: �[2J�b"


@pytest.mark.parametrize(("lines", "line"), [(["a"], 0), (["a"], 2), ([" "], 1), ([], 1)])
def test_where_nothing_stands_nothing_is_shown(lines: list[str], line: int) -> None:
    assert excerpt(lines, line, 1) is None


@given(st.text(), st.integers(-3, 500), st.integers(1, 120))
def test_the_mark_never_leaves_the_line_by_more_than_itself(line: str, column: int, width: int) -> None:
    found = excerpt([line], 1, column, width)
    if found is not None:
        assert found.length >= 1
        assert 0 <= found.indent <= cell_len(found.text) + 1
        assert found.indent + found.length <= cell_len(found.text) + 2
        assert all(c.isprintable() for c in found.text)
