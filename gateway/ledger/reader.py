"""Reads the ledger while others write it, and changes nothing of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, inspect, select, text
from sqlalchemy.exc import SQLAlchemyError

from gateway.ledger import queries, urls
from gateway.ledger.asked import Asked
from gateway.ledger.database import REVISIONS, connected
from gateway.ledger.errors import LedgerError
from gateway.ledger.report import Report
from gateway.ledger.row import Row

T = TypeVar("T")
STEPS = 20_000  # of SQLite's machine between looks at the clock: some milliseconds


class UnreadableError(LedgerError):
    """Not now; it may be there again later. `told` is what the database itself says, which may name its address."""

    def __init__(self, message: str, told: str = "") -> None:
        super().__init__(message)
        self.told = told


class NotMadeError(UnreadableError):
    """There is no ledger yet: nothing was ever written."""


class Reader:
    """For several threads. An answer takes `seconds` at most, where they are given."""

    def __init__(self, url: str, seconds: float | None = None) -> None:
        self._engine, self._seconds = connected(url, read_only=True), seconds
        self._path, self._closed = urls.file_of(url), False

    def row(self, request_id: str, caller: str | None) -> Row | None:
        """That of the newest request of the id; of anybody's where `caller` is None. Raises LedgerError."""
        try:
            return self._read(lambda connection: queries.row(connection, request_id, caller))
        except NotMadeError:
            return None

    def prompts(self, since: datetime, most: int) -> list[Row]:
        """Those of recent requests, as queries.prompts has them. Raises LedgerError."""
        return self._read(lambda connection: queries.prompts(connection, since, most))

    def usage(self, asked: Asked, most: int | None = None) -> Report:
        """Raises AskedError where it has more than `most` rows, and LedgerError."""
        return self._read(lambda connection: queries.usage(connection, asked, most))

    def close(self) -> None:
        self._closed = True
        self._engine.dispose()

    def _read(self, work: Callable[[Connection], T]) -> T:
        if self._path is not None and not self._path.exists():
            raise NotMadeError("there is no ledger yet")
        try:
            with self._engine.connect() as connection:
                # One picture of the whole: what is rolled up meanwhile is counted once.
                if connection.dialect.name == "postgresql":
                    connection.execution_options(isolation_level="REPEATABLE READ")
                self._limit(connection)
                _check(connection)
                return work(connection)
        except SQLAlchemyError as error:
            cause = getattr(error, "orig", None) or error
            told = str(cause).partition("\n")[0]
            raise UnreadableError(f"the ledger cannot be read: {type(cause).__name__}", told) from None

    def _limit(self, connection: Connection) -> None:
        if self._seconds is None:
            return
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"SET LOCAL statement_timeout = {int(self._seconds * 1000)}"))
            return
        end = time.monotonic() + self._seconds
        driver: Any = connection.connection.driver_connection
        driver.set_progress_handler(lambda: self._closed or time.monotonic() > end, STEPS)


def _check(connection: Connection) -> None:
    """Raises LedgerError where its tables are not those that are asked for."""
    known = inspect(connection).has_table(urls.REVISIONS)
    revision = connection.scalar(select(REVISIONS.c.version_num)) if known else None
    if revision is None:
        raise NotMadeError("there is no ledger in that database yet")
    urls.refuse_newer(revision)
    if revision != urls.REVISION:
        raise UnreadableError(
            f"the ledger is of revision {revision[:20]}, older than {urls.REVISION}; a gateway that starts with it brings it up "
            "to date"
        )
