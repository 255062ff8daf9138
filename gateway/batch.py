"""Batch routing: JSON lines in, one decision a line out, in order. A bad line gets an error and the rest goes on."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from gateway.errors import BadRequestError
from gateway.requests.chat import Chat
from gateway.requests.routed import text_query
from router.decision import Decision, Query
from router.routing import Router

CHUNK = 64


def route_lines(router: Router, lines: Iterable[str | bytes], answers: TextIO, model: str = "auto") -> int:
    """Route every line and write its decision; returns how many lines could not be routed. Blank lines are passed over."""
    failed = 0
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    while chunk := list(itertools.islice(numbered, CHUNK)):
        for answer in _route_chunk(router, chunk, model):
            failed += "error" in answer
            # Everything beyond ASCII escaped: a line stays one line, and half a character of an id goes back as it came.
            answers.write(json.dumps(answer) + "\n")
        answers.flush()
    return failed


def _route_chunk(router: Router, chunk: list[tuple[int, str | bytes]], model: str) -> Iterator[dict[str, Any]]:
    read = [read_line(number, line, model) for number, line in chunk]
    queries = [item for _, item in read if isinstance(item, Query)]
    outcomes = iter(router.decide_many(queries))
    for key, item in read:
        answer = item if isinstance(item, str) else next(outcomes)
        yield {"id": key} | (answer.summary() if isinstance(answer, Decision) else {"error": str(answer)})


def read_line(number: int, line: str | bytes, model: str) -> tuple[Any, Query | str]:
    """The line's id and its query, or what is wrong with it. A line without a readable id is called by its number."""
    try:
        raw = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return number, "not valid JSON"
    if not isinstance(raw, dict):
        return number, "not a JSON object"
    key = raw.get("id", number)
    if isinstance(raw.get("prompt"), str):
        if not raw["prompt"].strip():
            return key, "prompt is empty"
        return key, text_query(raw["prompt"], model)
    if "messages" not in raw:
        return key, "neither prompt (text) nor messages"
    try:
        query = Chat.parse(json.dumps({"messages": raw["messages"], "model": model}).encode()).query()
    except BadRequestError as error:
        return key, error.message
    return key, query


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
