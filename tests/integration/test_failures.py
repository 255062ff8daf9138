"""docs/failures.md, row by row, against a running gateway over real sockets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import httpx
import pytest

from gateway.settings import Settings
from router.artifact import Artifact
from router.experts import parse_experts
from router.routing import Router
from tests.fakes.owner import fake_owner
from tests.integration.conftest import _threaded
from tests.integration.failures.checks import Case
from tests.integration.failures.endpoints import ENDPOINTS
from tests.integration.failures.plays import ELSEWHERE, HEARD, PLAYS, plays_of
from tests.integration.failures.scenes import SCENES
from tests.integration.failures.stage import LONG_SECONDS, Stage, dead_ends, experts_yaml, servers
from tests.integration.failures.table import rows

ROWS = {row.id: row for row in rows()}
# Rows that are right and that the gateway does not do yet.
NOT_YET: dict[str, str] = {}
AT_ONCE = ("gateway-drain",)  # scenes that ask for a stream and for a whole answer in one go


@pytest.fixture(scope="module")
def gateway_stage(artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    state = tmp_path_factory.mktemp("state")
    with servers() as (raw, good, strange), dead_ends() as (refused, deaf), fake_owner(state) as owner:
        router = Router(parse_experts(experts_yaml(raw, good, strange, refused, deaf)), artifact)
        settings = Settings(health_interval=3600.0, client_seconds=1.0, state=state)
        # One client: to make one takes longer than most rows.
        told = {"response": [lambda _: HEARD.set()]}
        with _threaded(settings, router) as gateway, httpx.Client(timeout=2 * LONG_SECONDS, event_hooks=told) as client:
            yield Stage(gateway, raw, good, client, artifact, owner)


@pytest.fixture
def stage(gateway_stage: Stage) -> Stage:
    gateway_stage.forget()
    return gateway_stage


def cases(names: Iterable[str], endpoint: str = "chat") -> list[object]:
    """A case for each row and each way of asking that it holds for."""
    where = "" if endpoint == "chat" else f"-{endpoint}"
    return [
        pytest.param(name, stream, endpoint, id=f"{name}-{'stream' if stream else 'whole'}{where}", marks=_marks(name))
        for name, row in ROWS.items()
        if name in names
        for stream in (row.asked if name not in AT_ONCE else (True,))
        if ENDPOINTS[endpoint].streams or not stream
    ]


def _marks(name: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.xfail(strict=True, reason=NOT_YET[name])] if name in NOT_YET else []


def test_each_row_has_a_test_and_each_test_a_row() -> None:
    assert sorted(ROWS) == sorted([*PLAYS, *(name for name in SCENES if name not in PLAYS)])
    assert set(ELSEWHERE) <= set(PLAYS)


LEAVING = ("client-leaves", "client-leaves-waiting", "client-leaves-early")


@pytest.mark.parametrize(("name", "stream", "endpoint"), [*cases(SCENES), *cases(LEAVING, "messages")])
def test_scene(stage: Stage, name: str, stream: bool, endpoint: str) -> None:
    stage.endpoint = endpoint
    SCENES[name](stage, ROWS[name], stream)


ELSE = [case for endpoint in ENDPOINTS if endpoint != "chat" for case in cases(ELSEWHERE, endpoint)]


@pytest.mark.parametrize(("name", "stream", "endpoint"), [*cases(PLAYS), *ELSE])
def test_what_follows_from(stage: Stage, name: str, stream: bool, endpoint: str) -> None:
    play = plays_of(ENDPOINTS[endpoint].upstream)[name]
    case = Case(ROWS[name], play, ENDPOINTS[endpoint])
    stage.raw.behaviour = play.behaviour(stream)
    before = stage.metrics()
    response = stage.ask(play.expert, stream, endpoint)
    assert response.elapsed.total_seconds() < LONG_SECONDS
    books = stage.books(before)
    case.check_client(response)
    case.check_attempts(play.expert, books)
    case.check_health(stage, play.expert)
    case.check_billed(play.expert, books)
    assert stage.good.calls == []

    stage.forget()
    before = stage.metrics()
    response = stage.ask(f"{play.expert}-then", stream, endpoint)
    books = stage.books(before)
    case.check_attempts(f"{play.expert}-then", books)
    if case.final:
        case.check_client(response)
        case.check_billed(f"{play.expert}-then", books)
        assert stage.good.calls == []
    else:
        case.check_next(response, books)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_the_next_replica_is_asked_before_the_next_expert(stage: Stage, endpoint: str) -> None:
    stage.raw.behaviour = PLAYS["500"].behaviour(False)
    before = stage.metrics()
    answers = [stage.ask("pair", False, endpoint) for _ in range(4)]  # they take turns to be the first
    assert [answer.headers["x-moe-expert"] for answer in answers] == ["pair"] * 4
    books = stage.books(before, requests=4)
    assert books.change("moe_upstream_attempts_total", expert="pair", replica="pair-1", outcome="ok") == 4
    assert books.change("moe_upstream_attempts_total", expert="pair", replica="pair-0", outcome="server_error") >= 1
    assert books.change("moe_fallbacks_total") == 0
