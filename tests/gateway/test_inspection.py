"""What upstreams say when they are asked now, over real sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.inspection import Inspected, inspect
from gateway.lora import ROUTES_OFF
from gateway.upstreams.custom import UPSTREAMS
from tests.fakes.adapters import Worker, worker_server
from tests.fakes.memory import FakeReply, FakeUpstream, experts_file
from tests.fakes.owner import facts, fake_owner

At = dict[str, str]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as held:
        yield held


@dataclass
class Packaged(FakeUpstream):
    """A package's upstream that answers anything with an object."""

    starting: Exception | None = None

    async def start(self) -> None:
        if self.starting is not None:
            raise self.starting

    async def post(self, *_: Any, **__: Any) -> FakeReply:
        return FakeReply(b"{}")


async def inspected(
    tmp_path: Path, experts: dict[str, Any], ask: bool = False, seconds: float = 5.0
) -> dict[str, Inspected]:
    return {found.replica: found for found in await inspect(experts_file(experts), tmp_path, seconds, ask)}


def expert(url: str, **changes: Any) -> dict[str, Any]:
    return {"model": "base", "upstream": {"vllm": [url]}, **changes}


def lora(url: str, adapter: Any, **changes: Any) -> dict[str, Any]:
    return expert(url, upstream={"vllm": [url], "adapter": adapter}, **changes)


async def one(tmp_path: Path, worker: Worker, ask: bool = False, **changes: Any) -> Inspected:
    with worker_server(worker) as url:
        return (await inspected(tmp_path, {"one": expert(url, **changes)}, ask))["one-0"]


async def test_one_that_is_as_the_file_says_has_no_problem_and_wrote_nothing(tmp_path: Path) -> None:
    worker = Worker()
    found = await one(
        tmp_path, worker, context_window=1024, capabilities=["tools", "json_schema"], endpoints=["chat", "responses"]
    )
    assert (found.served, found.context, found.context_in_file, found.problems, found.notes) == (
        True,
        2048,
        1024,
        [],
        [],
    )
    assert found.milliseconds is not None
    assert found.milliseconds > 0
    assert worker.generated == []


@pytest.mark.parametrize(("worker", "changes", "problem"), [
    (Worker("other"), {}, "model missing: base; its server has other"),
    (Worker(), {"context_window": 4096}, "context window: 4096 in the file, 2048 at its server"),
    (Worker(), {"endpoints": ["chat", "embeddings"]},
     "endpoint embeddings is declared, and its server has no /v1/embeddings"),
    (Worker(tools=False), {"capabilities": ["tools"]},
     'tools are declared and refused: "auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'),
    (Worker(), {"capabilities": ["vision"]}, "vision is declared and refused: base is not a multimodal model"),
    (Worker(grammar=False), {"capabilities": ["json_schema"]},
     "json_schema is declared and refused: Structured outputs are not yet supported for this kind of model."),
    (Worker(key="k-1"), {}, "it asks for a key: set api_key"),
    (Worker(up=False), {}, "its health is status 503"),
])  # fmt: skip
async def test_what_is_not_as_the_file_says_is_a_problem_without_a_token_written(
    worker: Worker, changes: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    found = await one(tmp_path, worker, **changes)
    assert found.problems == [problem]
    assert worker.generated == []


async def test_what_is_declared_and_there_is_no_problem(tmp_path: Path) -> None:
    assert (await one(tmp_path, Worker(pictures=True), capabilities=["vision", "tools"])).problems == []


async def test_a_server_that_takes_any_schema_keeps_to_none(tmp_path: Path) -> None:
    found = await one(tmp_path, Worker(schemas_looked_at=False), capabilities=["json_schema"])
    assert found.problems == ["json_schema is declared, and its server keeps to none: it took one that nothing fits"]


async def test_a_key_is_sent_and_one_that_is_refused_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASE_KEY", "k-right")
    with worker_server(Worker(key="k-right")) as right, worker_server(Worker(key="k-other")) as other:
        found = await inspected(tmp_path, {
            name: {"model": "base", "upstream": {"vllm": [url], "api_key": "${BASE_KEY}"}}
            for name, url in (("right", right), ("other", other))
        })  # fmt: skip
    assert found["right-0"].problems == []
    assert found["other-0"].problems == ["it refuses the api_key"]
    assert "k-right" not in str(found)
    assert "127.0.0.1" not in str(found)


async def test_adapters_of_one_server(tmp_path: Path) -> None:
    worker = Worker(adapters={"sql": "/lora/sql", "math": "/lora/math"}, parent="llama")
    with worker_server(worker) as url:
        experts = {
            "general": expert(url),
            "sql": lora(url, {"name": "sql", "path": "/lora/sql-2"}),
            "bio": lora(url, "bio"),
            "law": lora(url, {"name": "law", "path": "/lora/law"}),
        }
        found = await inspected(tmp_path, experts)
        assert found["general-0"].problems == []
        assert [problem.partition(":")[0] for problem in found["sql-0"].problems] == [
            "adapter of another model", "adapter from another path"
        ]  # fmt: skip
        assert found["bio-0"].problems == ["adapter missing: bio; its server has base, sql, math"]
        assert found["law-0"].problems == []
        assert found["law-0"].served is False
        assert found["law-0"].notes == ["the adapter law is not loaded; a gateway that serves this file loads it"]
        worker.routes = False
        found = await inspected(tmp_path, experts)
        assert found["law-0"].problems == [f"adapter missing: law; {ROUTES_OFF}"]
    assert worker.told == []


async def test_what_has_no_list_cannot_be_told_and_is_not_asked_as_a_vllm_is(tmp_path: Path) -> None:
    worker = Worker(list_body=b"<html>", tools=False)
    found = await one(tmp_path, worker, capabilities=["tools"])
    assert (found.served, found.problems) == (None, [])
    assert found.notes == ["it has no list of models: whether it serves this one cannot be told"]
    assert (await one(tmp_path, Worker(owner="llamacpp", tools=False), capabilities=["tools"])).problems == []
    assert worker.generated == []


async def test_who_cannot_be_reached_or_never_answers_is_told_and_keeps_no_other_waiting(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        socket.socket() as deaf,
        worker_server(Worker()) as url,
    ):
        deaf.bind(("127.0.0.1", 0))  # nobody else's port, and nobody listens there
        experts = {
            "well": expert(url),
            "refused": expert(f"http://127.0.0.1:{deaf.getsockname()[1]}/v1"),
            "silent": expert(f"http://127.0.0.1:{silent.getsockname()[1]}/v1"),
        }
        for seconds in (0.3, 2.0, 10.0):  # where the machine is busy the one that is well may be late
            found = await inspected(tmp_path, experts, seconds=seconds, ask=True)
            if not found["well-0"].problems:
                break
    assert found["well-0"].problems == []
    assert found["refused-0"].problems == ["it could not be reached"]
    assert found["silent-0"].problems == ["it did not answer in time"]
    assert found["silent-0"].milliseconds is None


async def test_asked_for_a_token_of_each_kind_it_answers_or_says_why_not(tmp_path: Path) -> None:
    worker = Worker()
    found = await one(tmp_path, worker, ask=True, capabilities=["tools", "json_schema"])
    assert worker.generated == ["base"] * 3
    assert [note.partition(" ")[0] for note in found.notes] == ["chat", "tools", "json_schema"]
    found = await one(tmp_path, Worker(grammar=False), ask=True, capabilities=["json_schema"])
    assert [problem.partition(":")[0] for problem in found.problems] == ["json_schema is declared and refused"]
    assert [note.partition(" ")[0] for note in found.notes] == ["chat"]
    worker = Worker()
    assert (
        (await one(tmp_path, worker, ask=True, endpoints=["completions"])).notes[0].startswith("completions answered")
    )
    found = await one(tmp_path, Worker(endpoints=("/v1/embeddings",)), ask=True, endpoints=["embeddings"])
    assert found.notes[0].startswith("embeddings answered")
    worker = Worker("other")
    assert (await one(tmp_path, worker, ask=True)).notes == []  # it was found out already
    assert worker.generated == []


async def test_launched_workers_without_an_owner_are_a_problem(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    experts = {
        "base": {"upstream": {"launch": {"replicas": 2}}},
        "sql": {"upstream": {"worker": "base", "adapter": "sql"}},
    }
    found = await inspected(tmp_path, experts)
    assert list(found) == ["base-0", "base-1", "sql-0", "sql-1"]
    for replica in found.values():
        assert replica.problems == [
            "nobody runs its worker: start moe-gateway workers up, or serve --with-workers"
        ]  # fmt: skip


async def test_launched_workers_are_asked_where_their_owner_says_that_they_are(tmp_path: Path) -> None:
    experts = {
        "base": {"model": "base", "upstream": {"launch": {"replicas": 4}}},
        "sql": {"upstream": {"worker": "base", "adapter": "sql"}},
    }
    with worker_server(Worker(key="k-1", adapters={"sql": "/lora/sql"})) as url:
        crew = [
            facts("base-0", "ready", url, api_key="k-1"),
            facts("base-1", "asleep"),
            facts("base-2", "failed", why="no GPU\x07 is free"),
            facts("base-3", "starting"),
        ]
        with fake_owner(tmp_path, *crew) as owner:
            found = await inspected(tmp_path, experts)
    for expert in ("base", "sql"):
        assert [(found[f"{expert}-{i}"].problems, found[f"{expert}-{i}"].notes) for i in range(4)] == [
            ([], []),
            ([], ["its worker sleeps"]),
            (["its worker failed: no GPU\ufffd is free"], []),
            ([], ["its worker is starting"]),
        ]
        assert found[f"{expert}-0"].served is True
    assert owner.asked == []  # to look changes nothing


@pytest.mark.parametrize(
    ("scripted", "problems", "notes"),
    [
        (Packaged(), [], ["chat answered"]),
        (Packaged(well=False), ["the upstream acme says that it is not well"], []),
        (Packaged(starting=OSError("no")), ["its package cannot be used: OSError"], []),
    ],
)
async def test_a_packages_upstream_is_asked_how_it_is(
    tmp_path: Path, scripted: Packaged, problems: list[str], notes: list[str]
) -> None:
    with UPSTREAMS.lending("acme", lambda: scripted):
        found = (await inspected(tmp_path, {"one": {"upstream": {"custom": "acme"}}}, ask=True))["one-0"]
    assert (found.problems, [note.partition(" in ")[0] for note in found.notes]) == (problems, notes)
    assert (found.milliseconds is None) == bool(problems)


async def test_a_stand_in_and_a_provider_that_litellm_does_not_know(tmp_path: Path) -> None:
    found = await inspected(tmp_path, {
        "small": {"upstream": {"embedded": "smollm2"}},
        "odd": {"upstream": {"litellm": "no-such-provider/x".replace("-", "_")}},
        "keyless": {"upstream": {"litellm": "openai/gpt-4o"}},
        "local": {"upstream": {"litellm": "openai/anything", "base_url": "http://127.0.0.1:9/v1"}},
    })  # fmt: skip
    assert found["small-0"].notes == ["a stand-in, which the gateway starts itself"]
    assert found["odd-0"].problems == ["litellm knows no provider 'no_such_provider'"]
    assert found["keyless-0"].problems == ["its provider asks for a key: set api_key"]
    assert found["local-0"].problems == []
    assert found["local-0"].notes == ["a provider is not asked, since any answer has its price: --ask does"]
