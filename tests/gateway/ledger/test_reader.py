"""Reading changes nothing, waits for nobody for long, and says what is wrong."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update
from sqlalchemy.exc import InternalError, OperationalError

from gateway.ledger import urls
from gateway.ledger.asked import EVER, Asked
from gateway.ledger.database import REVISIONS, connected, migrate
from gateway.ledger.errors import LedgerError, NewerLedgerError
from gateway.ledger.reader import NotMadeError, Reader, UnreadableError
from gateway.ledger.tables import requests
from tests.fakes.ledgers import THEN, row

ALL = Asked(("expert",), EVER)


def made(url: str, count: int = 1, revision: str | None = None) -> str:
    """A ledger there, with so many rows."""
    engine = connected(url)
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(requests.insert(), [row(number) for number in range(count)])
        if revision:
            connection.execute(update(REVISIONS).values(version_num=revision))
    engine.dispose()
    return url


@contextmanager
def reading(url: str, seconds: float | None = None) -> Iterator[Reader]:
    reader = Reader(url, seconds)
    try:
        yield reader
    finally:
        reader.close()


def test_what_is_there_is_read_and_nothing_is_changed(url: str) -> None:
    with reading(made(url)) as reader:
        assert reader.usage(ALL).total.sums["requests"] == 1
        found = reader.row("req-0", "team-a")
        assert found is not None
        assert found["expert"] == "coder"
        assert reader.row("req-0", "team-b") is None
        with (
            reader._engine.connect() as connection,
            pytest.raises(OperationalError if "sqlite" in url else InternalError),
        ):
            connection.execute(requests.insert(), [row(5)])


@pytest.mark.parametrize(("revision", "kind"), [("9999", NewerLedgerError), ("0001", UnreadableError)])
def test_tables_that_are_not_todays_are_refused_and_not_mended(
    url: str, revision: str, kind: type[LedgerError]
) -> None:
    with reading(made(url, revision=revision)) as reader, pytest.raises(kind, match=revision):
        reader.usage(ALL)


def test_a_database_that_is_away_is_told_without_its_password() -> None:
    url = "postgresql://moe:s3cret@127.0.0.1:1/ledger"
    with reading(url) as reader, pytest.raises(UnreadableError) as caught:
        reader.usage(ALL)
    assert "s3cret" not in f"{caught.value} {caught.value.told}"
    assert "127.0.0.1" not in str(caught.value)
    assert caught.value.told


def test_an_answer_that_takes_too_long_is_given_up(url: str) -> None:
    made(url, 5000)
    with reading(url, 0.001) as reader, pytest.raises(UnreadableError):
        reader.usage(ALL)


def test_no_file_is_made_where_there_is_none_and_one_that_comes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with reading(urls.in_file(path)) as reader:
        with pytest.raises(NotMadeError, match="no ledger yet"):
            reader.usage(ALL)
        assert reader.row("req-0", "team-a") is None
        assert not list(tmp_path.iterdir())
        made(urls.in_file(path))
        assert reader.usage(ALL).total.sums["requests"] == 1
        for left in tmp_path.iterdir():
            left.unlink()
        made(urls.in_file(path), 2)
        assert reader.usage(ALL).total.sums["requests"] == 2


def test_a_file_that_is_no_ledger_is_told(tmp_path: Path) -> None:
    for name, content in (("text", b"hello" * 500), ("other", b"")):
        path = tmp_path / name
        path.write_bytes(content)
        with reading(urls.in_file(path)) as reader, pytest.raises(UnreadableError):
            reader.usage(ALL)
        assert path.read_bytes() == content


def test_it_reads_while_another_writes_and_does_not_hold_it_up(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    made(urls.in_file(path))
    with closing(sqlite3.connect(path, timeout=0)) as writer, reading(urls.in_file(path)) as reader:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE requests SET caller = 'other'")
        assert reader.row("req-0", "team-a") is not None
        assert reader.usage(ALL).total.sums["requests"] == 1
        writer.commit()
        assert reader.row("req-0", "other") is not None


def test_prompts_of_requests_that_were_routed_are_read_oldest_first(url: str) -> None:
    engine = connected(made(url))
    told = [
        row(10, prompt="newest", at=THEN + timedelta(hours=2), requested="auto:best"),
        row(11, prompt="older", at=THEN + timedelta(hours=1)),
        row(12, prompt="by name", requested="coder"),
        row(13, prompt="too old", at=THEN - timedelta(hours=1)),
    ]
    with engine.begin() as connection:
        connection.execute(requests.insert(), told)
    engine.dispose()
    with reading(url) as reader:
        assert [found["prompt"] for found in reader.prompts(THEN, 9)] == ["older", "newest"]
        (newest,) = reader.prompts(THEN, 1)
    assert newest == {
        "id": "req-10",
        "prompt": "newest",
        "requested": "auto:best",
        "input_tokens": 8,
        "cached_input_tokens": 3,
        "output_tokens": 4,
    }
