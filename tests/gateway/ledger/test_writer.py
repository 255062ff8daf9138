from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

from gateway.exchange import Exchange, Outcome
from gateway.ledger import database, store, urls, writer
from gateway.ledger.metrics import LedgerMetrics
from gateway.ledger.row import Row
from gateway.ledger.store import Store
from gateway.ledger.writer import Ledger
from router.decision import Query
from tests.fakes.ledgers import look, row
from tests.fakes.memory import decision
from tests.fakes.upstream import PATIENCE

NUMBERS = "SELECT number FROM requests ORDER BY number"
COUNT = "SELECT count(*) FROM requests"
AWAY = "the ledger cannot be written, requests wait for it"
BACK = "the ledger is written again"


@dataclass
class Kept:
    """A ledger and what is counted of it."""

    ledger: Ledger
    registry: CollectorRegistry

    def observe(self, count: int) -> None:
        for number in range(count):
            exchange = Exchange(f"req-{number}", "chat.completions")
            exchange.finish(Outcome.OK, 200)
            self.ledger.observe(exchange)

    def counted(self, name: str) -> float:
        return self.registry.get_sample_value(f"moe_ledger_{name}") or 0.0


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


@contextmanager
def kept(url: str, start: bool = True, **options: Any) -> Iterator[Kept]:
    registry = CollectorRegistry()
    ledger = Ledger(url, LedgerMetrics(registry), **options)
    if start:
        ledger.start()
    try:
        yield Kept(ledger, registry)
    finally:
        ledger.close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(writer, "WRITE_SECONDS", 0.01)
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.01)
    caplog.set_level(logging.INFO, "moe_gateway")


@pytest.fixture
def file(tmp_path: Path) -> str:
    return urls.in_file(tmp_path / "ledger.db")


def said(caplog: pytest.LogCaptureFixture, event: str) -> list[Any]:
    return [record for record in caplog.records if record.getMessage() == event]


def test_what_is_observed_is_written(url: str) -> None:
    with kept(url) as one, kept(url) as other:
        one.observe(230)
        other.observe(20)
        until(lambda: one.counted("written_total") + other.counted("written_total") == 250)
        until(lambda: (one.counted("queued"), one.counted("lag_seconds")) == (0, 0))
        assert one.counted("dropped_total") == 0
    assert look(url, COUNT) == [(250,)]
    assert [number for (number,) in look(url, NUMBERS)] == sorted([*range(230), *range(20)])


def test_the_end_writes_all_that_waits_at_once(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "WRITE_SECONDS", 3600.0)
    with kept(file) as one:
        one.observe(230)
        assert one.ledger.waiting()[0] == 230
    assert look(file, COUNT) == [(230,)]
    assert (one.counted("queued"), one.counted("written_total")) == (0, 230)


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Each statement that writers send to a database, and for how many rows."""
    sent: list[tuple[str, int]] = []

    def connected(url: str) -> Engine:
        engine = database.connected(url)

        @event.listens_for(engine, "before_cursor_execute")
        def _sent(_1: Any, _2: Any, statement: str, rows: Any, _3: Any, many: bool) -> None:
            sent.append((statement, len(rows) if many else 1))

        return engine

    monkeypatch.setattr(store, "connected", connected)
    return sent


def test_no_more_than_a_batch_is_made_ready_at_once(file: str, executed: list[tuple[str, int]]) -> None:
    with kept(file, start=False) as one:
        one.observe(230)
        one.ledger.start()
    written = [rows for statement, rows in executed if statement.startswith("INSERT INTO requests")]
    assert written == [100, 100, 30]


def test_old_rows_are_looked_for_once_in_a_while(
    file: str, executed: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def looks() -> int:
        return sum(statement.startswith("SELECT count(*)") for statement, _ in executed)

    def one_more(one: Kept) -> None:
        before = one.counted("written_total")
        one.observe(1)
        until(lambda: one.counted("written_total") > before)

    with kept(file, keep=timedelta(days=2)) as one:
        for _ in range(5):
            one_more(one)
    assert looks() == 1
    monkeypatch.setattr(writer, "ROLL_UP_SECONDS", 0.0)
    with kept(file, keep=timedelta(days=2)):
        until(lambda: looks() > 3)


def test_how_long_the_oldest_waits_is_told(file: str) -> None:
    with kept(file, start=False) as one:
        one.observe(2)
        time.sleep(0.002)
        waiting, lag = one.ledger.waiting()
        one.ledger._metrics.refresh()
        assert waiting == one.counted("queued") == 2
        assert 0.002 <= lag <= one.counted("lag_seconds")


# Each breaks the database, and returns what mends it.


def locked(path: Path, patch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Another writes and does not end."""
    made_at(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other.close


def full(path: Path, patch: pytest.MonkeyPatch) -> Callable[[], None]:
    """No more pages can be had, which SQLite calls a full disk."""
    made_at(path)
    pages = [1]

    def narrow(url: str) -> Engine:
        engine = database.connected(url)
        event.listen(engine, "begin", lambda c: c.exec_driver_sql(f"PRAGMA max_page_count = {pages[0]}"))
        return engine

    patch.setattr(store, "connected", narrow)
    return lambda: pages.append(pages.pop() + 2**30)


def no_folder(path: Path, patch: pytest.MonkeyPatch) -> Callable[[], None]:
    path.parent.touch()  # a file where its folder should be
    return path.parent.unlink


def no_database(path: Path, patch: pytest.MonkeyPatch) -> Callable[[], None]:
    path.parent.mkdir()
    path.write_text("this is no database, however long it is" * 1000)
    return path.unlink


def newer(path: Path, patch: pytest.MonkeyPatch) -> Callable[[], None]:
    made_at(path)
    look(urls.in_file(path), "UPDATE ledger_revision SET version_num = '0999'")
    return path.unlink


def made_at(path: Path) -> None:
    made = Store(urls.in_file(path))
    made.open()
    made.close()


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (locked, "OperationalError SQLITE_BUSY"),
        (full, "OperationalError SQLITE_FULL"),
        (no_folder, "FileExistsError EEXIST"),
        (no_database, "DatabaseError SQLITE_NOTADB"),
        (newer, "the ledger's database is of revision '0999', made by a newer moe-gateway"),
    ],
)
def test_a_database_that_is_away_is_waited_for_and_what_has_no_place_is_counted(
    broken: Callable[[Path, pytest.MonkeyPatch], Callable[[], None]],
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "folder" / "ledger.db"
    tried: list[Store] = []
    opened = Store.open

    def open_counted(self: Store) -> None:
        tried.append(self)
        opened(self)

    monkeypatch.setattr(Store, "open", open_counted)
    mend = broken(path, monkeypatch)
    with kept(urls.in_file(path), queued=150) as one:
        one.observe(170)
        until(lambda: one.counted("queued") == 150 and said(caplog, AWAY) != [])
        assert (one.counted("dropped_total"), one.counted("written_total")) == (20, 0)
        until(lambda: len(tried) > 9)  # it is away for more than one turn
        mend()
        until(lambda: one.counted("written_total") == 150 and said(caplog, BACK) != [])
        assert one.counted("dropped_total") == 20
    assert [number for (number,) in look(urls.in_file(path), NUMBERS)] == list(range(150))
    (away,), (back,) = said(caplog, AWAY), said(caplog, BACK)
    assert away.why.startswith(why)
    assert back.missing == 20


def test_what_cannot_be_written_in_the_end_is_missing_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(writer, "END_SECONDS", 0.1)
    (tmp_path / "file").touch()
    with kept(urls.in_file(tmp_path / "file" / "ledger.db")) as one:
        one.observe(3)
    (told,) = said(caplog, "requests are missing from the ledger")
    assert (told.requests, one.counted("dropped_total")) == (3, 3)


def test_a_commit_of_which_nobody_knows_counts_once(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful(Store):
        """Its first answer gets lost."""

        lost = False

        def write(self, rows: Sequence[Row]) -> int:
            refused = super().write(rows)
            if not Forgetful.lost:
                Forgetful.lost = True
                raise OperationalError("COMMIT", {}, ConnectionResetError())
            return refused

    monkeypatch.setattr(store, "Store", Forgetful)
    with kept(file) as one:
        one.observe(50)
        until(lambda: one.counted("written_total") == 50)
    assert look(file, COUNT) == [(50,)]


def test_a_row_that_no_database_takes_is_counted_and_the_others_are_written(file: str) -> None:
    with kept(file, start=False) as one:
        one.observe(2)
        exchange = Exchange("\ud800", "chat.completions")
        exchange.finish(Outcome.OK, 200)
        one.ledger.observe(exchange)
        one.ledger.start()
        until(lambda: (one.counted("written_total"), one.counted("dropped_total")) == (2, 1))


def test_old_rows_become_totals_where_they_are_not_kept(url: str) -> None:
    made = Store(url)
    old = datetime.now(UTC) - timedelta(days=3)
    made.write([row(number, at=old) for number in range(5)] + [row(9, at=datetime.now(UTC))])
    made.close()
    with kept(url):
        pass
    assert look(url, COUNT) == [(6,)]
    with kept(url, keep=timedelta(days=2)):
        until(lambda: look(url, COUNT) == [(1,)])
    assert look(url, "SELECT requests FROM daily") == [(5,)]


def test_prompts_are_not_kept_by_the_thousand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PROMPTS_QUEUED", 2)
    with kept(urls.in_file(tmp_path / "ledger.db"), start=False, prompts=True) as keeps:
        for number in range(4):
            exchange = Exchange(
                f"req-{number}", "chat.completions", query=Query(f"prompt {number}"), decision=decision("coder")
            )
            exchange.finish(Outcome.OK, 200)
            keeps.ledger.observe(exchange)
        keeps.ledger.start()
    prompts = look(urls.in_file(tmp_path / "ledger.db"), "SELECT prompt FROM requests ORDER BY number")
    assert prompts == [("prompt 0",), ("prompt 1",), (None,), (None,)]
