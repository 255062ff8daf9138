from __future__ import annotations

import json

import pytest

from gateway.console import fail, print_json, shown_progress


def test_each_line_of_an_error_says_so_and_the_exit_status_is_1(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        fail("a [red]b[/red]\n" + "c" * 300)
    assert left.value.code == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "error: a [red]b[/red]\nerror: " + "c" * 300 + "\n"


def test_what_an_error_quotes_moves_no_terminal(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    with pytest.raises(SystemExit):
        fail("no \x1b[31mred, no \ud800 half,\tno \u202eturn")
    assert capsysbinary.readouterr().err == rb"error: no \x1b[31mred, no \ud800 half,\tno \u202eturn" + b"\n"


def test_json_is_printed_whole_and_readable(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"ä": ["x" * 300]})
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"ä": ["x" * 300]}
    assert "ä" in printed


def test_half_a_character_is_printed_as_json_writes_it(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    print_json({"a\ud800": "\udfff"})
    assert json.loads(capsysbinary.readouterr().out) == {"a\ud800": "\udfff"}


def test_elsewhere_than_on_a_terminal_each_step_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with shown_progress() as progress:
        for done in range(3):
            progress("counting", done, 2)
        progress("writing", 0, 1)
    printed = capsys.readouterr()
    assert printed.err.splitlines() == ["counting …", "writing …"]
    assert printed.out == ""
