"""Traffic: the prompts that a what-if is asked about, from a file of JSON lines or from the ledger of a gateway."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from gateway.batch import read_line
from gateway.ledger.reader import Reader
from gateway.ledger.row import Row
from gateway.requests.routed import text_query
from router.decision import Query
from router.policy import POLICIES
from router.rerouting import Prompt


@dataclass(frozen=True)
class Traffic:
    """`problems` say of each line that could not be used what is wrong with it."""

    prompts: tuple[Prompt, ...]
    problems: tuple[str, ...] = ()


def read_lines(lines: Iterable[bytes], name: str, model: str = "auto") -> Traffic:
    """Of a file in the format of batch routing; `name` stands in the problems, `model` is the virtual model that is asked for."""
    prompts: list[Prompt] = []
    problems: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        key, read = read_line(number, line, model)
        if isinstance(read, Query):
            prompts.append(Prompt(read, str(key)))
        else:
            problems.append(f"{name}:{number}: {read}")
    return Traffic(tuple(prompts), tuple(problems))


def read_ledger(url: str, since: datetime, most: int) -> Traffic:
    """The newest prompts that a gateway recorded, at most so many, oldest first. Raises LedgerError.

    The ledger keeps the last message of a conversation: each is asked about as if it stood alone.
    """
    reader = Reader(url)
    try:
        return Traffic(tuple(_recorded(reader.prompts(since, most))))
    finally:
        reader.close()


def _recorded(rows: Iterable[Row]) -> Iterator[Prompt]:
    for row in rows:
        model = row["requested"] if row["requested"] in POLICIES else "auto"
        query = text_query(row["prompt"], model)
        read, cached = row["input_tokens"], row["cached_input_tokens"]
        if read is not None:
            query = replace(query, tokens=read + (cached or 0))
        yield Prompt(query, row["id"], row["output_tokens"])
