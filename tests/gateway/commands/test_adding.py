from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gateway.commands.adding import MOST_BYTES, read_examples, read_qualities


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (["legal"], {"legal": None}),
        (["legal=0.9", "code"], {"legal": 0.9, "code": None}),
        (["legal=1, code=0"], {"legal": 1.0, "code": 0.0}),
    ],
)
def test_domains_are_named_with_their_qualities(said: list[str], found: dict[str, float | None]) -> None:
    assert read_qualities(said) == found


@pytest.mark.parametrize("said", ["", "=1", "legal=", "legal=nan", "legal=1.1", "legal=-0.1", "Legal", "a b", "x" * 33])
def test_what_is_no_domain_is_refused(said: str) -> None:
    with pytest.raises(ValueError, match=r"such as legal=0\.9"):
        read_qualities([said])


def test_prompts_are_a_line_each_or_json(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\n  two  \none\n")
    rows = [{"prompt": "one\nof two lines"}, {"prompt": "two", "id": 5}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    assert read_examples(tmp_path / "a.txt") == ["one", "two"]
    assert read_examples(tmp_path / "a.jsonl") == ["one\nof two lines", "two"]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.jsonl", b'{"prompt": "x"}\n{"text": "y"}\n', "a.jsonl:2: not an object with a prompt"),
        ("a.jsonl", b"[" * 100_000, "a.jsonl:1: not an object with a prompt"),
        ("a.txt", b"\n \n", "there is no prompt in"),
        ("a.txt", b"x\ncaf\xe9\n", "a.txt:2:4 is not in UTF-8"),
        ("a.txt", b"x" * (MOST_BYTES + 1), "is larger than"),
    ],
)
def test_a_file_that_is_none_of_prompts_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SystemExit) as left:
        read_examples(tmp_path / name)
    assert left.value.code == 1
    assert told in capsys.readouterr().err


def test_a_pipe_is_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SystemExit):
        read_examples(tmp_path / "pipe")
    assert "is a pipe" in capsys.readouterr().err
