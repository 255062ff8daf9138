"""Where a ledger is: what a URL may say, known before anything is served and without what reads and writes databases."""

from __future__ import annotations

import importlib.util
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from gateway.ledger.errors import LedgerUrlError, NewerLedgerError
from router.errors import MissingExtraError

SQLITE = "sqlite:///"
POSTGRES = ("postgresql", "postgres", "postgresql+psycopg")
REVISION = "0003"  # the newest in migrations/versions
REVISIONS = "ledger_revision"  # the table in which Alembic keeps a database's revision
FORMS = "sqlite:////path/to/ledger.db, postgresql://user:password@host/name, or none"
LOOK_SECONDS = 2


def in_file(path: Path) -> str:
    """The URL of a ledger in this file."""
    return f"{SQLITE}{quote(str(path))}"


def file_of(url: str) -> Path | None:
    """The file that the ledger is in, None where it is in PostgreSQL."""
    return Path(unquote(url.removeprefix(SQLITE).partition("?")[0])) if url.startswith(SQLITE) else None


def check(url: str) -> None:
    """Raises LedgerUrlError where no ledger can be at `url`, MissingExtraError where its driver is not installed, and
    NewerLedgerError. A database that is not there now may be there later."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - reading it checks it
    except ValueError:
        raise LedgerUrlError(f"--ledger is no URL; it takes {FORMS}") from None
    path = file_of(url)
    if path is None and parts.scheme not in POSTGRES:
        raise LedgerUrlError(f"--ledger takes {FORMS}; this is neither")
    if path is not None and (path == Path() or str(path).startswith((":memory:", "file:")) or path.is_dir()):
        raise LedgerUrlError("--ledger names no file: write sqlite:////path/to/ledger.db")
    if path is None and importlib.util.find_spec("psycopg") is None:
        raise MissingExtraError("psycopg", "postgres")
    revision = _revision_of_file(path) if path is not None else _revision_of_server(url)
    refuse_newer(revision)


def refuse_newer(revision: str) -> None:
    """Raises NewerLedgerError."""
    if revision > REVISION:
        raise NewerLedgerError(
            f"the ledger's database is of revision {revision[:20]!r}, made by a newer moe-gateway; this one knows {REVISION}. "
            "Run the newer one, name another database with --ledger, or do without: --ledger none"
        )


def _revision_of_file(path: Path) -> str:
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=LOOK_SECONDS)) as connection:
            row = connection.execute(f"SELECT version_num FROM {REVISIONS}").fetchone()  # noqa: S608 - a constant
    except sqlite3.Error:
        return ""
    return str(row[0]) if row else ""


def _revision_of_server(url: str) -> str:
    import psycopg

    try:
        with psycopg.connect(url.replace("+psycopg", "", 1), connect_timeout=LOOK_SECONDS) as connection:
            row = connection.execute(f"SELECT version_num FROM {REVISIONS}").fetchone()  # noqa: S608 - a constant
    except psycopg.Error:
        return ""
    return str(row[0]) if row else ""
