from __future__ import annotations

from datetime import timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from gateway.ledger import urls
from gateway.ledger.database import connected
from gateway.ledger.store import Store, why
from gateway.ledger.tables import requests
from tests.fakes.ledgers import THEN, look, row
from tests.fakes.postgres import PASSWORD

NUMBERS = "SELECT number FROM requests ORDER BY number"


def test_what_is_written_twice_is_there_once(url: str) -> None:
    store = Store(url)
    assert store.write([row(1), row(2)]) == 0
    assert store.write([row(2, caller="another"), row(3), row(2, writer=2)]) == 0
    store.close()
    assert look(url, "SELECT writer, number, caller FROM requests ORDER BY writer, number") == [
        (1, 1, "team-a"),
        (1, 2, "team-a"),
        (1, 3, "team-a"),
        (2, 2, "team-a"),
    ]


@pytest.mark.parametrize("bad", [{"caller": None}, {"input_tokens": 2**70}, {"id": "\ud800"}, {"at": "yesterday"}])
def test_a_row_that_no_database_takes_holds_no_other_back(url: str, bad: dict[str, object]) -> None:
    store = Store(url)
    rows = [row(number, **(bad if number in (3, 6) else {})) for number in range(9)]
    assert store.write(rows) == 2
    store.close()
    assert [number for (number,) in look(url, NUMBERS)] == [0, 1, 2, 4, 5, 7, 8]


def test_a_file_that_was_removed_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    store = Store(urls.in_file(path))
    store.write([row(1)])
    path.unlink()
    store.write([row(2)])
    store.close()
    assert look(urls.in_file(path), NUMBERS) == [(2,)]


def test_tables_that_were_dropped_are_an_error_and_then_made_anew(url: str) -> None:
    store = Store(url)
    store.open()
    for table in ("requests", "daily", urls.REVISIONS):
        look(url, f"DROP TABLE {table}")
    with pytest.raises(Exception, match=r"no such table|does not exist"):
        store.write([row(1)])
    assert store.write([row(1)]) == 0
    store.close()


def test_an_error_is_told_without_rows_or_addresses(tmp_path: Path) -> None:
    secret = f"postgresql://me:{PASSWORD}@/ledger?host={tmp_path}"
    with pytest.raises(OperationalError) as away:
        Store(secret).open()
    assert why(away.value) == "OperationalError"
    (tmp_path / "ledger.db").write_text("this is no database at all, however long it is " * 100)
    with pytest.raises(Exception, match="not a database") as other:
        Store(urls.in_file(tmp_path / "ledger.db")).open()
    assert why(other.value) == "DatabaseError SQLITE_NOTADB"
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file") as none:
        Store(urls.in_file(tmp_path / "file" / "ledger.db")).open()
    assert why(none.value) in ("FileExistsError EEXIST", "NotADirectoryError ENOTDIR")


def test_times_and_numbers_come_back_as_they_went(url: str) -> None:
    store = Store(url)
    store.write([row(1, input_tokens=2**40, cost_usd=1e-7, confidence=0.1 + 0.2, stream=True)])
    store.close()
    found = look(url, "SELECT input_tokens, cost_usd, confidence, stream FROM requests")
    assert found == [(2**40, 1e-7, 0.1 + 0.2, True)]


def test_a_time_is_the_same_moment_whatever_its_zone(url: str) -> None:
    tokyo = THEN.astimezone(timezone(timedelta(hours=9)))
    store = Store(url)
    store.write([row(1, at=tokyo)])
    store.close()
    engine = connected(url, read_only=True)
    with engine.connect() as connection:
        (at,) = connection.execute(select(requests.c.at)).one()
    engine.dispose()
    assert (at, at.utcoffset()) == (THEN, timedelta(0))
