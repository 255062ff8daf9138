"""Ledgers in both databases."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest

from gateway.ledger import urls
from tests.fakes.postgres import Postgres, postgres

_names = count()


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@pytest.fixture
def on_server(server: Postgres) -> str:
    """The URL of a database of one's own."""
    name = f"ledger{next(_names)}"
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return server.url.replace("/postgres?", f"/{name}?")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """In either of them."""
    if request.param == "sqlite":
        return urls.in_file(tmp_path / "ledger of ours.db")
    of_server: str = request.getfixturevalue("on_server")
    return of_server
