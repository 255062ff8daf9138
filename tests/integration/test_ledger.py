"""The ledger of a running gateway: what it has when the gateway ends well, when it is killed, and when its database is away."""

from __future__ import annotations

import json
import logging
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import httpx
import psutil
import pytest

from gateway.ledger import urls, writer
from tests.fakes.ledgers import look
from tests.fakes.postgres import PASSWORD, postgres
from tests.fakes.upstream import PATIENCE, FakeServer, silent
from tests.integration.conftest import Command, Start, experts_yaml, metric, serve

PROMPT = "zanzibar-quetzal-prompt"
KEY = "key-of-team-a-xyzzy"
KEYS = {"MOE_GATEWAY_KEYS": f"team-a:{KEY}"}
IDS = "SELECT id FROM requests"
TOLD = (
    "SELECT caller, endpoint, status, outcome, requested, expert, model, input_tokens, output_tokens, prompt FROM requests "
    "ORDER BY id"
)
AWAY = "the ledger cannot be written, requests wait for it"


def ask(
    url: str, request_id: str = "", model: str = "one", stream: bool = False, client: httpx.Client | None = None
) -> httpx.Response:
    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": PROMPT}]}
    headers = {"authorization": f"Bearer {KEY}", **({"x-request-id": request_id} if request_id else {})}
    post = client.post if client is not None else httpx.post
    return post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=PATIENCE)


def until(true: Callable[[], bool]) -> bool:
    end = time.monotonic() + 2 * PATIENCE
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def ids(url: str) -> list[str]:
    """Of the requests that are there; none where there is no ledger yet."""
    try:
        return [found for (found,) in look(url, IDS)]
    except sqlite3.OperationalError:
        return []


@dataclass
class Traffic:
    """Requests one after the other from several clients, and when each was answered."""

    url: str
    answered: dict[str, float] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    _end: threading.Event = field(default_factory=threading.Event)

    def _run(self, name: int) -> None:
        with httpx.Client(timeout=PATIENCE) as client:
            for number in count():
                if self._end.is_set():
                    return
                request_id = f"c{name}-{number}"
                try:
                    assert ask(self.url, request_id, stream=bool(number % 2), client=client).status_code == 200
                except (AssertionError, httpx.HTTPError) as error:
                    self.failed.append(f"{request_id}: {error!r}")
                    return
                self.answered[request_id] = time.monotonic()

    @contextmanager
    def flowing(self, clients: int = 3) -> Iterator[None]:
        threads = [threading.Thread(target=self._run, args=(client,)) for client in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._end.set()
            for thread in threads:
                thread.join()


@pytest.fixture
def config(servers: list[FakeServer], tmp_path: Path) -> Path:
    path = tmp_path / "experts.yaml"
    path.write_text(experts_yaml(servers[0], servers[1]))
    return path


@pytest.fixture
def at(tmp_path: Path) -> str:
    """Where the ledger is that the command keeps unasked."""
    return urls.in_file(tmp_path / ".moe-gateway" / "ledger.db")


@pytest.mark.parametrize("prompts", [False, True])
def test_what_was_asked_is_there_and_the_prompt_and_keys_are_not(
    start: Start, servers: list[FakeServer], tmp_path: Path, prompts: bool
) -> None:
    url = urls.in_file(tmp_path / "ledger.db")
    gateway = start(experts_yaml(servers[0]), ledger=url, ledger_prompts=prompts, keys={"team-a": KEY})
    assert ask(gateway.url, "asked-1", model="auto").status_code == 200
    assert ask(gateway.url, "asked-2", model=f"sk-{KEY}").status_code == 404
    assert httpx.post(f"{gateway.url}/v1/chat/completions", content=b"{", timeout=PATIENCE).status_code == 401
    assert gateway.settled("moe_ledger_written_total", 2)
    assert look(url, TOLD) == [
        ("team-a", "chat.completions", 200, "ok", "auto", "one", "model-one", 8, 4, PROMPT if prompts else None),
        ("team-a", "chat.completions", 404, "client_error", None, None, None, None, None, None),
    ]
    kept = b"".join(file.read_bytes() for file in tmp_path.glob("ledger.db*"))
    assert (PROMPT.encode() in kept) is prompts
    assert KEY.encode() not in kept


def test_every_request_is_answered_while_postgres_is_away_and_nothing_counts_twice(
    start: Start, servers: list[FakeServer], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "moe_gateway")
    with postgres() as server:
        gateway = start(experts_yaml(servers[0]), ledger=server.url)
        traffic = Traffic(gateway.url)
        with traffic.flowing():
            assert until(lambda: gateway.metric("moe_ledger_written_total") > 20)
            server.kill()
            before = len(traffic.answered)
            assert until(lambda: len(traffic.answered) > before + 20 and gateway.metric("moe_ledger_queued") > 20)
            assert until(lambda: AWAY in caplog.messages)  # a batch has been tried meanwhile
            server.start()
            written = gateway.metric("moe_ledger_written_total")
            assert until(lambda: gateway.metric("moe_ledger_written_total") > written + 20)
        assert traffic.failed == []
        assert gateway.settled("moe_ledger_queued", 0)
        assert gateway.metric("moe_ledger_dropped_total") == 0
        assert Counter(found for (found,) in server.rows(IDS)) == Counter(list(traffic.answered))
    events = [record.getMessage() for record in caplog.records]
    assert events.count(AWAY) == 1
    assert PASSWORD not in caplog.text + json.dumps([vars(record) for record in caplog.records], default=str)


def test_a_signal_under_traffic_loses_nothing(config: Path, at: str) -> None:
    with serve("--config", str(config), environment=KEYS) as command:
        traffic = Traffic(command.url)
        with traffic.flowing():
            assert until(lambda: len(traffic.answered) > 30)
            command.process.send_signal(signal.SIGTERM)
            assert command.process.wait(2 * PATIENCE) == 0
    found = Counter(ids(at))
    assert set(found.values()) == {1}
    assert traffic.answered.keys() <= found.keys()


def test_a_second_signal_loses_nothing_of_several_processes(
    config: Path, at: str, servers: list[FakeServer], tmp_path: Path
) -> None:
    with (
        serve("--config", str(config), "--processes", "2", "--drain-seconds", "60", environment=KEYS) as command,
        ThreadPoolExecutor(8) as pool,
    ):
        done = [f"done-{number}" for number in range(40)]
        assert {answer.status_code for answer in pool.map(lambda one: ask(command.url, one), done)} == {200}
        assert until(lambda: told(command, "moe_ledger_written_total") == 40)  # of both processes together
        assert until(lambda: told(command, "moe_ledger_queued") == told(command, "moe_ledger_lag_seconds") == 0)
        servers[0].behaviour = silent
        cut = [f"cut-{number}" for number in range(4)]
        open_requests = [pool.submit(ask, command.url, one) for one in cut]
        assert until(lambda: servers[0].open == 4)
        command.process.send_signal(signal.SIGTERM)
        assert until(lambda: any('"draining"' in line for line in command.screen))
        command.process.send_signal(signal.SIGTERM)
        assert {request.result(2 * PATIENCE).status_code for request in open_requests} == {503}
        assert command.process.wait(2 * PATIENCE) == 0
    assert sorted(ids(at)) == sorted(done + cut)
    outcomes = "SELECT outcome, count(*) FROM requests GROUP BY outcome ORDER BY outcome"
    assert look(at, outcomes) == [("cancelled", 4), ("ok", 40)]
    assert not list((tmp_path / ".moe-gateway").glob("ledger.db-*"))  # all of it is in the one file


def test_a_kill_loses_the_last_second_at_most_and_no_database(config: Path, at: str) -> None:
    """What is lost was answered within the second before, but for what this machine itself was late with."""
    with serve("--config", str(config), "--processes", "2", environment=KEYS) as command, late() as lateness:
        everybody = [command.process, *psutil.Process(command.process.pid).children(recursive=True)]
        traffic = Traffic(command.url)
        with traffic.flowing():
            began = time.monotonic()
            assert until(lambda: len(ids(at)) > 50 and time.monotonic() > began + 2.5)
            killed = time.monotonic()
            for process in everybody:
                process.send_signal(signal.SIGKILL)
        for process in everybody:
            process.wait(PATIENCE)
    found = Counter(ids(at))
    assert set(found.values()) == {1}
    lost = [killed - answered for one, answered in traffic.answered.items() if one not in found]
    assert max(lost, default=0.0) < 1.0 + 2 * max(lateness)
    assert look(at, "PRAGMA integrity_check") == [("ok",)]


def test_a_ledger_that_cannot_be_made_keeps_no_gateway_from_starting(
    start: Start,
    servers: list[FakeServer],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writer, "END_SECONDS", 0.1)
    (tmp_path / "file").touch()
    gateway = start(experts_yaml(servers[0]), ledger=urls.in_file(tmp_path / "file" / "ledger.db"))
    assert ask(gateway.url).status_code == 200
    assert until(lambda: gateway.metric("moe_ledger_queued") == 1)
    assert until(lambda: AWAY in [record.getMessage() for record in caplog.records])


@contextmanager
def late() -> Iterator[list[float]]:
    """By how many seconds each of many short sleeps was too long: how slow the machine is at the moment."""
    found, end = [0.0], threading.Event()

    def look() -> None:
        while not end.is_set():
            before = time.monotonic()
            end.wait(0.05)
            found.append(max(0.0, time.monotonic() - before - 0.05))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        end.set()
        thread.join()


def told(command: Command, name: str) -> float:
    return metric(httpx.get(f"{command.url}/metrics", timeout=PATIENCE).text, name)
