from __future__ import annotations

import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, insert, inspect, select

from gateway.ledger import urls
from gateway.ledger.database import LOCK, MIGRATIONS, REVISION, REVISIONS, connected, migrate
from gateway.ledger.errors import NewerLedgerError
from gateway.ledger.tables import metadata, requests
from tests.fakes.ledgers import look, row
from tests.fakes.upstream import PATIENCE

AT_ONCE = 2
WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
# Opens each ledger that it is told of, and says when it is done.
PROGRAM = """
import sys
from gateway.ledger.store import Store
for url in map(str.strip, sys.stdin):
    if url:
        store = Store(url)
        store.open()
        store.close()
    print("done", flush=True)
"""


@contextmanager
def engine_of(url: str) -> Iterator[Engine]:
    engine = connected(url)
    try:
        yield engine
    finally:
        engine.dispose()


def made_by(engine: Engine, revision: str) -> None:
    """Its tables as that revision made them."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def test_what_migrations_make_is_what_the_code_knows(url: str) -> None:
    with engine_of(url) as engine:
        migrate(engine)
        with engine.begin() as connection:
            options = {"version_table": REVISIONS.name, "compare_type": True}
            assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
            assert connection.scalar(select(REVISIONS.c.version_num)) == REVISION


def test_revisions_are_ordered_by_their_names_and_the_last_is_the_one_of_the_code() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    revisions = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert revisions == sorted(revisions, reverse=True)
    assert revisions[0] == REVISION


@pytest.mark.parametrize("revision", ["0001", "0002"])
def test_an_older_database_is_migrated_and_keeps_its_rows(url: str, revision: str) -> None:
    with engine_of(url) as engine:
        made_by(engine, revision)
        assert inspect(engine).has_table("daily") == (revision != "0001")
        columns = {column["name"] for column in inspect(engine).get_columns("requests")}
        assert "why" not in columns
        with engine.begin() as connection:
            connection.execute(insert(requests).values({n: value for n, value in row(1).items() if n in columns}))
        migrate(engine)
        assert inspect(engine).has_table("daily")
        with engine.begin() as connection:
            assert dict(connection.execute(select(requests)).mappings().one()) == row(1)


def test_a_newer_database_is_left_alone(url: str) -> None:
    with engine_of(url) as engine:
        migrate(engine)
        look(url, "UPDATE ledger_revision SET version_num = '0999'")
        with pytest.raises(NewerLedgerError, match="0999"):
            migrate(engine)
        assert look(url, "SELECT version_num FROM ledger_revision") == [("0999",)]


def test_of_processes_that_begin_at_once_one_migrates(tmp_path: Path, on_server: str) -> None:
    with ExitStack() as stack:
        processes = [stack.enter_context(opener()) for _ in range(AT_ONCE)]
        told(processes, "")
        done(processes)
        for url in (urls.in_file(tmp_path / "ledger.db"), on_server):
            with held(url, len(processes)):
                told(processes, url)
            done(processes)
            assert look(url, "SELECT version_num FROM ledger_revision") == [(REVISION,)]


@contextmanager
def held(url: str, waiting: int) -> Iterator[None]:
    """Somebody else migrates PostgreSQL's ledger until so many wait for it, and nothing is made meanwhile."""
    if urls.file_of(url) is not None:
        yield
        return
    with psycopg.connect(url) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        yield
        end = time.monotonic() + PATIENCE
        while other.execute(WAITING).fetchone() != (waiting,):
            assert time.monotonic() < end
            time.sleep(0.02)
        assert other.execute("SELECT to_regclass('requests')").fetchone() == (None,)


def told(processes: Sequence[subprocess.Popen[str]], url: str) -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(f"{url}\n")
        process.stdin.flush()


def done(processes: Sequence[subprocess.Popen[str]]) -> None:
    assert [process.stdout.readline() for process in processes if process.stdout] == ["done\n"] * len(processes)


@contextmanager
def opener() -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_the_file_is_for_this_user_alone(tmp_path: Path) -> None:
    url = urls.in_file(tmp_path / "a" / "ledger.db")
    with engine_of(url) as engine:
        migrate(engine)
        files = sorted((tmp_path / "a").iterdir())
        assert [file.name for file in files] == ["ledger.db", "ledger.db-shm", "ledger.db-wal"]
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_who_only_reads_makes_nothing_and_changes_nothing(url: str, tmp_path: Path) -> None:
    with engine_of(url) as engine:
        migrate(engine)
    reader = connected(url, read_only=True)
    try:
        with pytest.raises(Exception, match=r"read-?only"), reader.begin() as connection:
            connection.execute(insert(requests), [row(1)])
    finally:
        reader.dispose()
    absent = connected(urls.in_file(tmp_path / "absent.db"), read_only=True)
    with pytest.raises(Exception, match="unable to open"), absent.begin():
        pass
    assert not (tmp_path / "absent.db").exists()


def test_days_are_those_of_utc_wherever_the_server_is(on_server: str) -> None:
    look(on_server, "ALTER ROLE moe SET timezone = 'Asia/Tokyo'")
    try:
        with engine_of(on_server) as engine, engine.connect() as connection:
            assert connection.exec_driver_sql("SHOW timezone").scalar() == "UTC"
    finally:
        look(on_server, "ALTER ROLE moe RESET timezone")


WRITES = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("DELETE FROM requests")
connection.commit()
connection.close()
"""


def test_to_connect_again_takes_no_lock_away(tmp_path: Path) -> None:
    """Another process that ends would take itself for the last one, and remove what we write into."""
    path = tmp_path / "ledger.db"
    url = urls.in_file(path)
    with engine_of(url) as engine:
        migrate(engine)
        with engine.connect() as connection:
            assert inspect(connection).has_table("requests")
            connection.commit()
            connected(url).dispose()
            subprocess.run([sys.executable, "-c", WRITES, str(path)], check=True, timeout=PATIENCE)
            assert (tmp_path / "ledger.db-wal").exists()
