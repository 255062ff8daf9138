"""The prompts of a comparison, as a file of JSON lines gives them, and what is known of the right answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from router.errors import CorpusError


class Prompt(msgspec.Struct, frozen=True):
    """One conversation to be answered. `expected`, `regex` and `test` say what a right answer is; with several all must hold.

    `expected` has to stand in the answer as whole words; `regex` is searched in it; `test` is a command that ends with 0 where
    the answer is right.
    """

    id: str
    messages: tuple[dict[str, Any], ...]
    domain: str = ""
    expected: str | None = None
    regex: str | None = None
    test: tuple[str, ...] | None = None

    @property
    def graded(self) -> bool:
        return self.expected is not None or self.regex is not None or self.test is not None

    @property
    def text(self) -> str:
        """What was asked last, for people."""
        content = self.messages[-1].get("content")
        if isinstance(content, list):
            content = " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
        return content if isinstance(content, str) else ""


class _Line(msgspec.Struct):
    id: str | int | None = None
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    domain: str = ""
    expected: str | int | float | None = None
    regex: str | None = None
    test: str | list[str] | None = None


_DECODER = msgspec.json.Decoder(_Line)


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts of a file. Raises CorpusError with every line that cannot be used, OSError."""
    found: list[Prompt] = []
    problems: list[str] = []
    lines: dict[str, int] = {}
    for number, line in _lines(path):
        try:
            prompt = _prompt(line, number)
        except ValueError as error:
            problems.append(f"{path.name}:{number}: {error}")
            continue
        if prompt.id in lines:
            problems.append(f"{path.name}:{number}: the id {prompt.id!r} stands on line {lines[prompt.id]} already")
        lines.setdefault(prompt.id, number)
        found.append(prompt)
    if not found and not problems:
        problems.append(f"{path.name}: there is no prompt in it")
    if problems:
        raise CorpusError("\n".join(problems))
    return found


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if line.strip():
            yield number, line


def _prompt(line: bytes, number: int) -> Prompt:
    """Raises ValueError."""
    try:
        read = _DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not a prompt in JSON: {error}") from None
    if (read.prompt is None) == (read.messages is None):
        raise ValueError("give prompt or messages")
    messages = read.messages if read.messages is not None else [{"role": "user", "content": read.prompt}]
    if not messages or read.prompt == "":
        raise ValueError("there is nothing to be answered")
    if read.regex is not None:
        try:
            re.compile(read.regex)
        except re.error as error:
            raise ValueError(f"regex: {error}") from None
    expected = None if read.expected is None else str(read.expected)
    if expected is not None and not expected.strip():
        raise ValueError("expected is empty")
    name = str(number) if read.id is None else str(read.id)
    return Prompt(name, tuple(messages), read.domain, expected, read.regex, _command(read.test))


def _command(test: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """A list is run as it is, a line by the shell."""
    if test is None:
        return None
    command = ("/bin/sh", "-c", test) if isinstance(test, str) else tuple(test)
    if not command or not command[-1].strip():
        raise ValueError("test is empty")
    return command
