"""The database that a ledger is in: how it is connected to, and how it comes to have today's tables."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event, func, inspect, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import Column, MetaData, Table
from sqlalchemy.types import Text

from gateway.ledger import urls

MIGRATIONS = Path(__file__).parent / "migrations"
REVISION = urls.REVISION
REVISIONS = Table(urls.REVISIONS, MetaData(), Column("version_num", Text))
BUSY_SECONDS = 5.0  # that one who writes waits for another
LOOK_SECONDS = 0.01
CONNECT_SECONDS = 5
UNHEARD_MILLISECONDS = 10_000  # a server that is silent for so long is gone
# One that is gone while its answer is waited for says nothing by itself: it is asked whether it lives.
ALIVE = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}
LOCK = 0x6D6F655F6C656467  # of all who migrate or roll up in one PostgreSQL database
_alembic = threading.Lock()  # it keeps what it works on in globals


def connected(url: str, read_only: bool = False) -> Engine:
    """An engine for `url`; nothing is opened yet. Errors of it show no rows. `read_only` creates no file and changes none."""
    parsed = _driven(make_url(url))
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(parsed, read_only)
    given = {"connect_timeout": CONNECT_SECONDS, "tcp_user_timeout": UNHEARD_MILLISECONDS, **ALIVE}
    arguments = {name: value for name, value in given.items() if name not in parsed.query}
    engine = create_engine(parsed, hide_parameters=True, pool_pre_ping=True, connect_args=arguments)

    @event.listens_for(engine, "connect")
    def _begin(connection: Any, _: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET TIME ZONE 'UTC'")  # in which days begin
            if read_only:
                cursor.execute("SET default_transaction_read_only = on")
        connection.commit()

    return engine


def migrate(engine: Engine) -> None:
    """Give the database today's tables. However many begin at once, one does it and the others find it done.

    Raises NewerLedgerError, and what SQLAlchemy raises where the database is not there.
    """
    with engine.begin() as connection:
        alone(connection)
        known = inspect(connection).has_table(REVISIONS.name)
        revision = (connection.scalar(select(REVISIONS.c.version_num)) if known else None) or ""
        urls.refuse_newer(revision)
        if revision != REVISION:
            _upgrade(connection)


def alone(connection: Connection) -> None:
    """Until the end of the transaction nobody else who calls this goes on. In SQLite the transaction itself sees to that."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(LOCK)))


def insert(engine: Engine, table: Table) -> sqlite.Insert:
    """An insert that may say what is done where a row is there already: both databases say it in the same words."""
    if engine.dialect.name == "postgresql":
        return cast(sqlite.Insert, postgresql.insert(table))
    return sqlite.insert(table)


def _driven(url: URL) -> URL:
    """With the driver that is installed with us, where the URL names none."""
    return url.set(drivername="postgresql+psycopg") if url.drivername in ("postgres", "postgresql") else url


def _sqlite(url: URL, read_only: bool) -> Engine:
    if read_only:
        url = url.set(database=f"file:{quote(url.database or '')}", query={"mode": "ro", "uri": "true"})
    else:
        _create(Path(url.database or ""))
    # A ledger that was deleted and made anew is read anew.
    pool = NullPool if read_only else None
    engine = create_engine(url, hide_parameters=True, poolclass=pool, connect_args={"timeout": BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def _begin(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver's own would begin transactions late, and none for tables
        if not read_only:
            # Readers and the writer do not wait for each other.
            _log_ahead(connection)
            # No wait for the disk at each commit: what a killed process has committed is there all the same. A machine that
            # loses its power may lose the last commits, and the file stays sound.
            connection.execute("PRAGMA synchronous = NORMAL")

    @event.listens_for(engine, "begin")
    def _transaction(connection: Connection) -> None:
        # One who reads first and writes then would fail, and not wait, where another has written in between.
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def _log_ahead(connection: Any) -> None:
    """WAL. SQLite itself does not wait where another one gives a new file this mode at the same moment."""
    end = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() >= end:
                raise
            time.sleep(LOOK_SECONDS)
        else:
            return


def _create(path: Path) -> None:
    """For this user alone; SQLite gives the files beside it the same mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Only where it is not there: to open and close a file drops all locks that this process has on it, SQLite's own among them.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _upgrade(connection: Connection) -> None:
    from alembic import command  # where nothing is to be migrated it is not needed, and it takes a while
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    with _alembic:
        command.upgrade(config, "head")
