"""A real PostgreSQL server of one's own: on a Unix socket in a folder of its own, and gone with the test."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.fakes.upstream import PATIENCE

UNPACKED = Path(__file__).parents[2] / ".cache" / "postgresql"  # by tests/gateway/ledger/postgres.sh
PASSWORD = "s3cret-of-the-ledger"  # asked for by nobody: it must not be seen anywhere
QUICK = {"fsync": "off", "shared_buffers": "16MB", "max_connections": "40", "jit": "off", "max_parallel_workers": "0"}


@dataclass
class Postgres:
    """`start` and `kill` it as often as one likes: its data stays."""

    programs: Path
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://moe:{PASSWORD}@/postgres?host={self.folder}"

    def start(self) -> None:
        """Returns when it answers."""
        settings = [part for name, value in QUICK.items() for part in ("-c", f"{name}={value}")]
        sockets = ["-c", "listen_addresses=", "-k", str(self.folder)]
        self.process = self._run("postgres", "-D", str(self.folder / "data"), *sockets, *settings)
        until = time.monotonic() + 2 * PATIENCE
        while not self._answers():
            assert self.process.poll() is None, "postgres ended"
            assert time.monotonic() < until, "postgres does not answer"
            time.sleep(0.05)

    def kill(self) -> None:
        """At once, as a crash does; with the processes that it serves connections with."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGQUIT)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url) as connection:
            return connection.execute(statement.encode()).fetchall()

    def make(self) -> None:
        arguments = (
            "-D",
            str(self.folder / "data"),
            "-U",
            "moe",
            "--auth=trust",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C",
        )
        made = self._run("initdb", *arguments)
        assert made.wait(2 * PATIENCE) == 0

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url).close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        """It refuses to be run by root."""
        libraries = [*UNPACKED.glob("usr/lib/*-linux-gnu"), *UNPACKED.glob("lib/*-linux-gnu")]
        environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, libraries))} if libraries else None
        user = _other() if os.geteuid() == 0 else None
        log = (self.folder / "log").open("ab")
        with log:
            return subprocess.Popen(
                [str(self.programs / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=environment,
                user=user,
                group=pwd.getpwnam(user).pw_gid if user else None,
                extra_groups=[] if user else None,
            )


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A server that runs; skips where there is no PostgreSQL."""
    programs = _programs()
    if programs is None:
        pytest.skip("there is no PostgreSQL here: make test tries to fetch it")
    folder = Path(tempfile.mkdtemp(prefix="moe-postgres-"))  # not pytest's own, which another user cannot enter
    server = Postgres(programs, folder)
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, _other())
        server.make()
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path | None:
    places = [*UNPACKED.glob("usr/lib/postgresql/*/bin"), *Path("/usr/lib/postgresql").glob("*/bin")]
    if on_path := shutil.which("postgres"):
        places.append(Path(on_path).resolve().parent)
    return next((place for place in places if _may_run(place)), None)


def _may_run(place: Path) -> bool:
    """Whether it is all there, and who is not root may go there."""
    entered = os.geteuid() != 0 or all(parent.stat().st_mode & 0o001 for parent in (place, *place.parents))
    return entered and (place / "initdb").exists() and (place / "postgres").exists()


def _other() -> str:
    """A user who is not root and has nothing to lose."""
    return "nobody"
