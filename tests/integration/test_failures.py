"""docs/failures.md, row by row, against a running gateway over real sockets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import httpx
import pytest

from gateway.settings import Settings
from router.artifact import Artifact
from router.experts import parse_experts
from router.routing import Router
from tests.integration.conftest import _threaded
from tests.integration.failures.plays import PLAYS, Play
from tests.integration.failures.scenes import SCENES
from tests.integration.failures.stage import (
    COST,
    GOOD_TEXT,
    TOKENS,
    Books,
    Stage,
    dead_ends,
    experts_yaml,
    said,
    servers,
)
from tests.integration.failures.table import Billed, Gets, Health, Next, Row, rows

ROWS = {row.id: row for row in rows()}
# Rows that are right and that the gateway does not do yet.
NOT_YET: dict[str, str] = {
    "reload-waiting": "nothing is reloaded",
    "reload-streaming": "nothing is reloaded",
}
AT_ONCE = ("gateway-drain",)  # scenes that ask for a stream and for a whole answer in one go
SECRETS = ("127.0.0.1", "10.1.2.3", "secret-host-7", "worker.invalid")


@pytest.fixture(scope="module")
def gateway_stage(artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with servers() as (raw, good), dead_ends() as (refused, deaf):
        router = Router(parse_experts(experts_yaml(raw, good, refused, deaf)), artifact)
        state = tmp_path_factory.mktemp("state")
        with _threaded(Settings(health_interval=3600.0, client_seconds=1.0, state=state), router) as gateway:
            stage = Stage(gateway, raw, good)
            stage.probed()
            yield stage


@pytest.fixture
def stage(gateway_stage: Stage) -> Stage:
    gateway_stage.forget()
    return gateway_stage


def cases(names: Iterable[str]) -> list[object]:
    """A case for each row and each way of asking that it holds for."""
    return [
        pytest.param(name, stream, id=f"{name}-{'stream' if stream else 'whole'}", marks=_marks(name))
        for name, row in ROWS.items()
        if name in names
        for stream in (row.asked if name not in AT_ONCE else (True,))
    ]


def _marks(name: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.xfail(strict=True, reason=NOT_YET[name])] if name in NOT_YET else []


def test_each_row_has_a_test_and_each_test_a_row() -> None:
    assert sorted(ROWS) == sorted([*PLAYS, *(name for name in SCENES if name not in PLAYS)])


@pytest.mark.parametrize(("name", "stream"), cases(SCENES))
def test_scene(stage: Stage, name: str, stream: bool) -> None:
    SCENES[name](stage, ROWS[name], stream)


@pytest.mark.parametrize(("name", "stream"), cases(PLAYS))
def test_what_follows_from(stage: Stage, name: str, stream: bool) -> None:
    row, play = ROWS[name], PLAYS[name]
    stage.raw.behaviour = play.behaviour(stream)
    before = stage.metrics()
    response = stage.ask(play.expert, stream)
    books = stage.books(before)
    check_client(row, play, response, stream)
    check_attempts(row, play, play.expert, books, play.attempts)
    check_health(row, stage, play.expert)
    check_billed(row, play, play.expert, books)
    assert stage.good.requests == []

    stage.forget()
    before = stage.metrics()
    response = stage.ask(f"{play.expert}-then", stream)
    books = stage.books(before)
    check_attempts(row, play, f"{play.expert}-then", books, play.attempts)
    if row.next in (Next.NONE, Next.LARGER):
        check_client(row, play, response, stream)
        check_billed(row, play, f"{play.expert}-then", books)
        assert stage.good.requests == []
    else:
        check_next(row, play, response, books)


def test_the_next_replica_is_asked_before_the_next_expert(stage: Stage) -> None:
    stage.raw.behaviour = PLAYS["500"].behaviour(False)
    before = stage.metrics()
    answers = [stage.ask("pair", stream=False) for _ in range(4)]  # they take turns to be the first
    assert [answer.headers["x-moe-expert"] for answer in answers] == ["pair"] * 4
    books = stage.books(before, requests=4)
    assert books.change("moe_upstream_attempts_total", expert="pair", replica="pair-1", outcome="ok") == 4
    assert books.change("moe_upstream_attempts_total", expert="pair", replica="pair-0", outcome="server_error") >= 1
    assert books.change("moe_fallbacks_total") == 0


def check_client(row: Row, play: Play, response: httpx.Response, stream: bool) -> None:
    """That the client gets what the row says where nobody is left."""
    assert response.status_code == row.status
    assert ("retry-after" in response.headers) == row.retry_after
    if play.retry_after:
        assert response.headers["retry-after"] == play.retry_after
    if row.gets is Gets.ERROR:
        error = response.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["code"] == row.code
    if row.gets is Gets.OWN:
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}
        assert play.own is None or response.content == play.own
    else:
        told = response.text + str(response.headers)
        assert [secret for secret in SECRETS if secret in told] == []
    if row.gets is Gets.ANSWER:
        assert said(response) == play.text
        assert '"error"' not in response.text
    if row.gets is Gets.EVENT:
        *content, last = [event for event in response.text.split("\n\n") if event]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == row.code
        assert all('"error"' not in event and "[DONE]" not in event for event in content)
        assert said(response).startswith(play.text)
        assert all(event.startswith(("data: {", ":")) and event.endswith(("}", "here")) for event in content)


def check_attempts(row: Row, play: Play, expert: str, books: Books, attempts: int) -> None:
    assert row.outcome is not None
    assert books.change("moe_upstream_attempts_total", expert=expert, outcome=row.outcome) == attempts
    assert books.change("moe_upstream_attempts_total", expert=expert) == attempts


def check_health(row: Row, stage: Stage, expert: str) -> None:
    if row.health is Health.DRAIN:
        assert not stage.available(expert)
    else:
        assert bool(stage.failures(expert)) == (row.health is Health.FAULT)
        assert stage.available(expert)


def check_billed(row: Row, play: Play, expert: str, books: Books) -> None:
    """That the expert is billed as the row says, and no other at all."""
    told = row.billed is Billed.ANSWER or (row.billed is Billed.TOLD and play.told)
    for kind, count in TOKENS.items():
        assert books.change("moe_tokens_total", kind=kind) == (count if told else 0)
        assert books.change("moe_tokens_total", expert=expert, kind=kind) == (count if told else 0)
    assert books.change("moe_cost_usd_total", expert=expert) == pytest.approx(COST if told else 0, abs=1e-10)


def check_next(row: Row, play: Play, response: httpx.Response, books: Books) -> None:
    """That the client got the answer of the next expert alone."""
    assert response.status_code == 200
    assert said(response) == GOOD_TEXT
    assert '"error"' not in response.text
    assert response.headers["x-moe-expert"] == "good"
    assert response.headers["x-moe-reason"] == "fallback"
    assert response.headers["x-moe-attempts"] == str(play.attempts + 1)
    assert books.change("moe_upstream_attempts_total", expert="good", outcome="ok") == 1
    assert books.change("moe_tokens_total", expert="good", kind="output") == TOKENS["output"]
    assert books.change("moe_tokens_total", kind="output") == TOKENS["output"]
    labels = {"from_expert": f"{play.expert}-then", "to_expert": "good", "reason": str(row.outcome)}
    assert books.change("moe_fallbacks_total", **labels) == 1
