"""Findings as a picture, and as GitHub's annotations."""

from __future__ import annotations

from gateway.checking.findings import Finding
from gateway.checking.formats import annotation, counted, pictured
from router.errors import Problem

WRONG = Finding("error", Problem("a.yaml", 2, 3, "experts.coder.modle", "unknown key"))
BITES = Finding("warning", Problem("b.yaml", 10, 5, "", "nobody answers"), "no-fallback")
LINES = {"a.yaml": ["x:", "  modle: y"], "b.yaml": ["#"] * 9 + ["abc: def"]}


def drawn(findings: list[Finding], lines: dict[str, list[str]] = LINES) -> str:
    return "\n".join(text.plain for text in pictured(findings, lines))


def test_a_picture_has_the_place_the_words_the_line_and_a_mark_under_the_spot() -> None:
    assert drawn([WRONG]).splitlines() == [
        "a.yaml:2:3: error: experts.coder.modle: unknown key",
        "  2 │   modle: y",
        "    │   ^^^^^",
    ]


def test_findings_of_several_files_stand_under_each_with_their_number() -> None:
    lines = drawn([BITES, WRONG, BITES]).splitlines()
    assert [line for line in lines if line.startswith(("a.yaml", "b.yaml"))] == [
        "b.yaml  2 warnings",
        "b.yaml:10:5: warning: nobody answers [no-fallback]",
        "b.yaml:10:5: warning: nobody answers [no-fallback]",
        "a.yaml  1 error",
        "a.yaml:2:3: error: experts.coder.modle: unknown key",
    ]
    assert "  10 │ abc: def\n     │     ^^^^" not in drawn([BITES])  # column 5 is behind the colon
    assert "  10 │ abc: def\n     │     ^" in drawn([BITES])


def test_of_a_file_that_could_not_be_read_no_line_is_told() -> None:
    gone = Finding("error", Problem("a.yaml", 1, 1, "", "is not there"))
    assert drawn([gone], {}).splitlines() == ["a.yaml: error: is not there"]
    assert drawn([WRONG], {}).splitlines() == ["a.yaml:2:3: error: experts.coder.modle: unknown key"]


def test_each_severity_is_counted() -> None:
    assert counted([WRONG, BITES, BITES]) == "1 error, 2 warnings"
    assert counted([]) == ""


def test_an_annotation_is_one_line_whatever_stands_in_it() -> None:
    assert annotation(WRONG) == "::error file=a.yaml,line=2,col=3::experts.coder.modle: unknown key"
    hostile = Finding("warning", Problem("a,b:c%.yaml", 1, 2, "", "50%\r\n::error::x"), "unpriced")
    assert annotation(hostile) == (
        "::warning file=a%2Cb%3Ac%25.yaml,line=1,col=2,title=unpriced::50%25%0D%0A::error::x"
    )


def test_what_a_file_has_for_keys_and_names_moves_no_terminal_and_stops_no_output() -> None:
    hostile = Finding("error", Problem("a\x1b[2J.yaml", 2, 3, "experts.\x1b]0;x\x07\ud800", "no \u202edomain"))
    for text in (drawn([hostile, BITES], {}).replace("\n", ""), annotation(hostile)):
        assert text.isprintable()
        assert r"experts.\x1b]0;x\x07\ud800: no \u202edomain" in text
