"""The ledger's database as its writer uses it. Whatever is wrong with it is an error here, and the next call tries anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from errno import errorcode
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from gateway.ledger import upkeep, urls
from gateway.ledger.database import connected, insert, migrate
from gateway.ledger.errors import LedgerError
from gateway.ledger.row import Row
from gateway.ledger.tables import requests

T = TypeVar("T")


class Store:
    """For one thread. Every call raises what SQLAlchemy raises where the database is not there, OSError and LedgerError."""

    def __init__(self, url: str) -> None:
        self._url, self._path = url, urls.file_of(url)
        self._engine: Engine | None = None
        self._file: tuple[int, int] | None = None  # what stood at the path when it was opened

    def open(self) -> None:
        """Connect and migrate, where that is not done or the file is gone."""
        self._with(lambda engine: None)

    def write(self, rows: Sequence[Row]) -> int:
        """Write the rows, and say how many of them no database would take. A row that is there already stays as it is."""
        return self._with(lambda engine: _insert(engine, rows))

    def roll_up(self, before: datetime) -> bool:
        """Turn some of the rows from before then into totals; whether there are more."""
        return self._with(lambda engine: upkeep.roll_up(engine, before))

    def close(self) -> None:
        if self._engine is not None:
            self._engine.dispose()
        self._engine = None

    def _with(self, work: Callable[[Engine], T]) -> T:
        try:
            return work(self._open())
        except Exception:
            self.close()
            raise

    def _open(self) -> Engine:
        if self._engine is not None and _file_at(self._path) != self._file:
            self.close()  # somebody removed the file, and what is written into it would be gone with it
        if self._engine is None:
            self._engine = connected(self._url)
            migrate(self._engine)
            self._file = _file_at(self._path)
        return self._engine


def why(error: Exception) -> str:
    """An error's kind and code: its text may tell rows, or where the database is."""
    if isinstance(error, LedgerError):
        return str(error)
    cause: Any = getattr(error, "orig", None) or error
    code = getattr(cause, "sqlite_errorname", None) or getattr(cause, "sqlstate", None)
    if isinstance(cause, OSError):
        code = errorcode.get(cause.errno or 0)
    return f"{type(cause).__name__} {code}" if code else type(cause).__name__


def _insert(engine: Engine, rows: Sequence[Row]) -> int:
    """Where one row is at fault the others are written without it. Returns how many were."""
    try:
        with engine.begin() as connection:
            connection.execute(insert(engine, requests).on_conflict_do_nothing(), rows)
    except Exception as error:
        if isinstance(error, DBAPIError) and not isinstance(error, DataError | IntegrityError):
            raise
        if len(rows) == 1:
            return 1
        middle = len(rows) // 2
        return _insert(engine, rows[:middle]) + _insert(engine, rows[middle:])
    return 0


def _file_at(path: Path | None) -> tuple[int, int] | None:
    if path is None:
        return None
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
