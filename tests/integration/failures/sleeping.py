"""Experts whose workers sleep: the rows of docs/failures.md that are about waking them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx

from gateway.workers.protocol import WorkerState
from tests.fakes.dialects import CHAT, TEXT, TOKENS
from tests.fakes.owner import facts, until
from tests.fakes.raw import END, piece, sends, stream_head, whole
from tests.integration.failures.endpoints import said
from tests.integration.failures.stage import Stage
from tests.integration.failures.table import Row


def tell(stage: Stage, state: WorkerState | str, expert: str, wake_seconds: float = 0.1) -> None:
    """What the owner says of the expert's worker, and wait until the gateway knows."""
    worker = facts(f"{expert}-0", state, stage.raw.url, since=time.time(), wake_seconds=wake_seconds)
    stage.owner.tell(worker)
    address = stage.gateway.state.pool.replicas[expert][0].address
    assert until(lambda: getattr(address, "facts", None) == worker)


@contextmanager
def once_wanted(stage: Stage, expert: str, then: Callable[[], None]) -> Iterator[None]:
    """Do something as soon as the owner hears that a request waits for the expert."""
    stage.owner.asked.clear()

    def wait() -> None:
        if until(lambda: stage.owner.wants(expert)):
            then()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def passed(stage: Stage, response: httpx.Response, expert: str, why: str) -> None:
    """The fallback answered, and alone was asked."""
    assert response.status_code == 200
    assert (said(response), response.headers["x-moe-expert"]) == (TEXT, "good")
    assert (response.headers["x-moe-reason"], response.headers["x-moe-attempts"]) == ("fallback", "1")
    assert stage.raw.calls == []


def told(response: httpx.Response, row: Row) -> int:
    """The seconds after which to come again."""
    assert response.status_code == row.status
    assert response.json()["error"]["code"] == row.code
    return int(response.headers["retry-after"])


def asleep(stage: Stage, row: Row, stream: bool) -> None:
    for expert in ("sleeper", "sleeper-then"):
        tell(stage, "asleep", expert, wake_seconds=100.0)
    before = stage.metrics()
    assert 95 < told(stage.ask("sleeper", stream), row) <= 100
    passed(stage, stage.ask("sleeper-then", stream), "sleeper-then", "asleep")
    assert until(lambda: stage.owner.wants("sleeper-then")[-1:] == [1])  # it is woken though nobody waits for it
    books = stage.books(before, requests=2)
    assert books.change("moe_fallbacks_total", from_expert="sleeper-then", to_expert="good", reason="asleep") == 1
    assert books.change("moe_queue_refused_total", expert="sleeper", reason="asleep") == 1
    assert books.change("moe_tokens_total", expert="sleeper") == 0
    tell(stage, "ready", "sleeper-then")


def waking(stage: Stage, row: Row, stream: bool) -> None:
    events = sends(stream_head(), *map(piece, CHAT.events), END, then="keep")
    stage.raw.behaviour = events if stream else sends(whole(CHAT.whole), then="keep")
    for expert in ("dozer", "dozer-then"):
        tell(stage, "asleep", expert)
        before = stage.metrics()
        with once_wanted(stage, expert, lambda expert=expert: tell(stage, "ready", expert)):  # type: ignore[misc]
            response = stage.ask(expert, stream)
        assert (response.status_code, said(response)) == (200, TEXT)
        assert (response.headers["x-moe-expert"], response.headers["x-moe-reason"]) == (expert, "pinned")
        books = stage.books(before)
        assert books.change("moe_upstream_attempts_total", expert=expert, outcome=str(row.outcome)) == 1
        assert books.change("moe_tokens_total", expert=expert, kind="output") == TOKENS["output"]
        assert until(lambda expert=expert: stage.owner.wants(expert)[-1] == 0)  # type: ignore[misc]


def woke_late(stage: Stage, row: Row, stream: bool) -> None:
    for expert in ("sleeper", "sleeper-then"):
        tell(stage, "asleep", expert, wake_seconds=0.1)
    before = stage.metrics()
    told(stage.ask("sleeper", stream), row)
    passed(stage, stage.ask("sleeper-then", stream), "sleeper-then", "woke_late")
    books = stage.books(before, requests=2)
    assert books.change("moe_fallbacks_total", from_expert="sleeper-then", to_expert="good", reason="woke_late") == 1
    tell(stage, "ready", "sleeper-then")


def wake_fails(stage: Stage, row: Row, stream: bool) -> None:
    before = stage.metrics()
    for expert in ("dozer", "dozer-then"):
        tell(stage, "waking", expert)
        with once_wanted(stage, expert, lambda expert=expert: tell(stage, "failed", expert)):  # type: ignore[misc]
            response = stage.ask(expert, stream)  # whose queue would have it wait for a minute
        if expert == "dozer":
            told(response, row)
        else:
            passed(stage, response, expert, "down")
    books = stage.books(before, requests=2)
    assert books.change("moe_upstream_attempts_total") == 1


def leaves_asleep(stage: Stage, row: Row, stream: bool) -> None:
    tell(stage, "asleep", "dozer")
    before = stage.metrics()
    stage.owner.asked.clear()
    with stage.leave("dozer", stream):
        assert until(lambda: stage.owner.wants("dozer") == [1])
    assert until(lambda: stage.owner.wants("dozer") == [1, 0])
    books = stage.books(before)
    assert books.change("moe_client_disconnects_total", phase="waiting") == 1
    assert books.change("moe_upstream_attempts_total") == 0
