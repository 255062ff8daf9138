from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.comparing.prompts import read_prompts
from router.errors import CorpusError


def written(path: Path, *lines: Any) -> Path:
    text = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text("\n".join(text) + "\n", "utf-8")
    return path


def test_prompts_and_conversations_are_read_with_what_grades_them(tmp_path: Path) -> None:
    file = written(
        tmp_path / "p.jsonl",
        {"prompt": "one", "domain": "math", "expected": 42, "other": "ignored"},
        "",
        {"id": "b", "messages": [{"role": "user", "content": [{"type": "text", "text": "two"}]}], "regex": "x+"},
        {"id": 7, "prompt": "three", "test": "grep -q x"},
        {"id": "list", "prompt": "four", "test": ["python3", "check.py"]},
    )
    one, two, three, four = read_prompts(file)
    assert (one.id, one.text, one.expected, one.domain, one.graded) == ("1", "one", "42", "math", True)
    assert (two.id, two.text, two.regex) == ("b", "two", "x+")
    assert (three.id, three.test) == ("7", ("/bin/sh", "-c", "grep -q x"))
    assert four.test == ("python3", "check.py")


def test_every_line_that_cannot_be_used_is_told_with_its_number(tmp_path: Path) -> None:
    file = written(
        tmp_path / "p.jsonl",
        {"id": "a", "prompt": "fine"},
        "no json",
        {"id": "both", "prompt": "x", "messages": [{"role": "user", "content": "x"}]},
        {"prompt": ""},
        {"messages": []},
        {"id": "a", "prompt": "again"},
        {"prompt": "x", "regex": "("},
        {"prompt": "x", "expected": " "},
        {"prompt": "x", "test": " "},
        {"prompt": "x", "test": []},
    )
    with pytest.raises(CorpusError) as caught:
        read_prompts(file)
    told = str(caught.value).splitlines()
    assert [line.split(":")[1] for line in told] == ["2", "3", "4", "5", "6", "7", "8", "9", "10"]
    assert "'a' stands on line 1 already" in told[4]


def test_a_file_without_a_prompt_is_no_comparison(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="there is no prompt in it"):
        read_prompts(written(tmp_path / "p.jsonl", ""))


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_whatever_a_file_holds_it_is_read_or_told(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.mktemp("p") / "p.jsonl"
    file.write_bytes(content)
    with suppress(CorpusError):
        assert read_prompts(file)
