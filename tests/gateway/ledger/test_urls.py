from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.ledger import urls
from gateway.ledger.errors import LedgerUrlError, NewerLedgerError
from tests.fakes.ledgers import look


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ledger.db",
        "mysql://u:hunter2@h/db",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///file:x?mode=memory&uri=true",
        "sqlite:////tmp",
        "http://h/",
    ],
)
def test_what_no_ledger_can_be_at_is_refused(url: str) -> None:
    with pytest.raises(LedgerUrlError, match=r"^--ledger"):
        urls.check(url)


@pytest.mark.parametrize(
    "url", ["postgresql://me:hunter2@[::1/db", "postgresql://me:hunter2@h:x/db", "oracle://me:hunter2@h"]
)
def test_a_refusal_shows_no_password(url: str) -> None:
    with pytest.raises(LedgerUrlError) as refused:
        urls.check(url)
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_database_that_is_not_there_may_come(tmp_path: Path) -> None:
    urls.check(urls.in_file(tmp_path / "none" / "yet.db"))
    urls.check(f"postgresql://me:hunter2@/ledger?host={tmp_path}")
    (tmp_path / "text.db").write_text("this is no database")
    urls.check(urls.in_file(tmp_path / "text.db"))


def test_a_path_may_hold_anything(tmp_path: Path) -> None:
    path = tmp_path / "a b%20?#ä.db"
    assert urls.file_of(urls.in_file(path)) == path
    assert urls.file_of("sqlite:///beside.db?timeout=3") == Path("beside.db")
    assert urls.file_of("postgresql://h/db") is None


def test_a_ledger_of_a_newer_gateway_is_refused(url: str) -> None:
    look(url, "CREATE TABLE ledger_revision (version_num TEXT)")
    look(url, f"INSERT INTO ledger_revision VALUES ('{urls.REVISION}')")  # noqa: S608 - a constant
    urls.check(url)
    look(url, "UPDATE ledger_revision SET version_num = '9999'")
    with pytest.raises(NewerLedgerError, match=r"9999.*--ledger none"):
        urls.check(url)


def test_nothing_that_reads_databases_is_imported_before_it_is_needed() -> None:
    program = "import sys, gateway.commands.serve, gateway.app; print({'sqlalchemy', 'alembic', 'psycopg'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
