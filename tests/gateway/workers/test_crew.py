"""The crew, over fake vLLMs that are real processes: start, death, sleep, turns, change, end."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil
import pytest

from gateway.workers.launched import LaunchedWorker
from gateway.workers.protocol import Want, WorkerState
from tests.fakes.vllm_environment import alive, launches, named, notes, words
from tests.gateway.workers.conftest import Running

Begin = Callable[[dict[str, dict[str, Any]]], Awaitable[Running]]
STARTING, READY, STOPPING, ASLEEP, WAKING, FAILED = (
    WorkerState.STARTING, WorkerState.READY, WorkerState.STOPPING, WorkerState.ASLEEP, WorkerState.WAKING, WorkerState.FAILED,
)  # fmt: skip


def one(orders: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"upstream": launches(orders, **more)}


def ask(worker: LaunchedWorker, key: str | None = None) -> int:
    """The status of one request."""
    given = {"authorization": f"Bearer {key or worker.api_key}"}
    try:
        with urlopen(Request(f"{worker.url}/chat/completions", b"{}", given), timeout=30) as answer:
            return int(answer.status)
    except HTTPError as error:
        error.close()
        return error.code


async def test_all_start_together_and_are_told_with_their_keys_once_they_serve(start: Begin, tmp_path: Path) -> None:
    record = {"record": str(tmp_path / "record")}
    running = await start({"a": one({"load": 0.2, **record}, replicas=2), "b": one(record)})
    told = {facts.name: facts for facts in running.crew.told().workers}
    assert list(told) == ["a-0", "a-1", "b-0"]
    assert {facts.state for facts in told.values()} == {STARTING}
    assert {(facts.url, facts.api_key) for facts in told.values()} == {(None, None)}
    await running.crew.settled()
    told = {facts.name: facts for facts in running.crew.told().workers}
    assert {facts.state for facts in told.values()} == {READY}
    assert len({facts.url for facts in told.values()}) == len({facts.api_key for facts in told.values()}) == 3
    workers = running.crew.workers
    assert await asyncio.to_thread(ask, workers["a-1"]) == 200
    assert await asyncio.to_thread(ask, workers["a-1"], workers["a-0"].api_key) == 401
    began = [note["cwd"] for note in notes(tmp_path / "record", "started")]
    assert began == [str(tmp_path)] * 3  # where experts.yaml lies


@pytest.mark.parametrize("who", ["server", "engine"])
async def test_one_that_dies_is_started_again_and_the_others_know_nothing_of_it(
    start: Begin, tmp_path: Path, state: Path, who: str
) -> None:
    record = tmp_path / "record"
    running = await start({"a": one({"record": str(record)}), "b": one()})
    await running.crew.settled()
    before, other = running.worker("a-0").pid, running.worker("b-0").pid
    pid = notes(record, "engines")[0] if who == "engine" else notes(record, "started")[0]["pid"]
    psutil.Process(pid).kill()
    await running.until(lambda: running.worker("a-0").restarts == 1)
    assert running.states("a-0") == [STARTING, READY, FAILED, STARTING, READY]
    assert "ended by itself" in next(f.why for f in running.seen if f.state is FAILED)
    assert running.worker("a-0").pid not in (None, before)
    assert (running.worker("b-0").pid, running.worker("b-0").restarts) == (other, 0)
    assert not any(process.pid == pid for process in alive(state))
    assert len(named(alive(state), "keeper.py")) == 2


async def test_one_that_does_not_start_says_why_and_is_tried_again(start: Begin, tmp_path: Path, state: Path) -> None:
    record = tmp_path / "record"
    wrong = {"fail": "vllm: error: unrecognized arguments: --nope", "record": str(record)}
    running = await start({"a": one(wrong), "b": one()})
    await running.crew.settled()
    why = next(facts.why for facts in running.seen if facts.state is FAILED)
    assert "vLLM does not know --nope" in why
    await running.until(lambda: len(notes(record, "started")) >= 2)
    assert running.worker("b-0").state is READY
    assert running.worker("a-0").facts.failing  # however often it is started


async def test_those_on_one_gpu_load_one_after_the_other(start: Begin, tmp_path: Path) -> None:
    record = tmp_path / "record"
    running = await start({"a": one({"load": 0.2, "record": str(record)}, gpus=[0], replicas=2)})
    first, second = running.worker("a-0"), running.worker("a-1")

    def loaded() -> bool:
        assert len(notes(record, "started")) < 2 or READY in (first.state, second.state)
        return first.state is second.state is READY

    await running.until(loaded)


async def test_one_that_is_never_ready_is_ended(start: Begin, state: Path) -> None:
    running = await start({"a": one({"never": True}, ready_within="400ms")})
    await running.crew.settled()
    assert running.worker("a-0").state is FAILED
    assert "was not ready within" in running.worker("a-0").why
    await running.until(lambda: not alive(state) or running.worker("a-0").state is STARTING)


async def test_a_port_that_is_taken_is_no_failure(start: Begin, tmp_path: Path) -> None:
    record = tmp_path / "record"
    running = await start({"a": one({"taken": 2, "record": str(record)})})
    await running.crew.settled()
    assert running.states("a-0") == [STARTING, READY]
    words = [note["argv"] for note in notes(record, "started")]
    assert len({argv[argv.index("--port") + 1] for argv in words}) == 3


async def test_a_port_that_is_taken_for_ever_is_one(start: Begin, tmp_path: Path) -> None:
    running = await start({"a": one({"taken": 1000, "record": str(tmp_path / "record")})})
    await running.crew.settled()
    assert running.worker("a-0").state is FAILED
    assert "took the port" in running.worker("a-0").why


async def test_the_end_waits_for_what_runs_and_leaves_nothing(start: Begin, state: Path, tmp_path: Path) -> None:
    let_go = tmp_path / "let-go"
    running = await start({"a": one({"held": str(let_go)})})
    await running.crew.settled()
    worker = running.worker("a-0")
    answer = asyncio.create_task(asyncio.to_thread(ask, worker))
    await running.until(lambda: worker.figures.running == 1)
    stopping = asyncio.create_task(running.crew.stop())
    await asyncio.sleep(0.5)
    assert not stopping.done()
    assert not answer.done()
    let_go.touch()
    await stopping
    assert await answer == 200
    assert alive(state) == []
    assert running.states("a-0")[-1] is STOPPING
    assert worker.facts.url is None


async def test_an_end_in_the_middle_of_a_start_leaves_nothing(start: Begin, state: Path) -> None:
    for turns in (0, 1, 2, 3, 5, 20, 60):  # of the event loop, the last ones some milliseconds long
        running = await start({"a": one({"load": 0.1}, replicas=2)})
        for _ in range(turns):
            await asyncio.sleep(0.001 * (turns > 5))
        await running.crew.stop()
        assert alive(state) == []


async def test_an_end_in_a_hurry_does_not_wait(start: Begin, state: Path) -> None:
    running = await start({"a": one({"seconds": 60, "stubborn": True})})
    await running.crew.settled()
    worker = running.worker("a-0")
    asking = asyncio.create_task(asyncio.to_thread(ask, worker))
    await running.until(lambda: worker.figures.running == 1)
    ending = asyncio.create_task(running.crew.stop())
    await asyncio.sleep(0.1)
    assert not ending.done()
    running.crew.hurry()
    await ending
    assert alive(state) == []
    with contextlib.suppress(OSError):
        await asking


async def test_one_that_hangs_is_killed_but_not_its_successor(start: Begin) -> None:
    running = await start({"a": one({"stubborn": True})})
    await running.crew.settled()
    worker = running.worker("a-0")
    url, pid = worker.url, worker.pid
    assert url is not None
    running.crew.hung("a-0", "http://127.0.0.1:1/v1")
    running.crew.hung("b-0", url)
    await asyncio.sleep(0.05)
    assert worker.pid == pid
    running.crew.hung("a-0", url)
    await running.until(lambda: worker.restarts == 1)
    running.crew.hung("a-0", url)
    await asyncio.sleep(0.05)
    assert (worker.restarts, worker.state) == (1, READY)


async def test_no_key_is_to_be_seen_and_the_gateways_own_are_not_handed_on(
    start: Begin, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOE_GATEWAY_KEYS", "team:not-for-vllm")
    monkeypatch.setenv("MOE_GATEWAY_ADMIN_KEY", "not-for-vllm")
    record = tmp_path / "record"
    running = await start({"a": one({"record": str(record)}, env={"TOKEN": "a-token"})})
    await running.crew.settled()
    worker = running.worker("a-0")
    assert notes(record, "started")[0]["env"]["VLLM_API_KEY"] == worker.api_key
    await running.until(lambda: len(alive(state)) == 4)
    said = " ".join(word for process in alive(state) for word in words(process))
    board = await running.crew.board("experts.yaml")
    for text in (said, worker.log_file.read_text(), repr(board), repr(worker.plan)):
        assert str(worker.api_key) not in text
        assert "a-token" not in text
    for process in alive(state):
        with contextlib.suppress(psutil.NoSuchProcess):
            assert "not-for-vllm" not in " ".join(process.environ().values())


async def test_the_board_tells_what_each_does(start: Begin, tmp_path: Path) -> None:
    let_go = tmp_path / "let-go"
    running = await start(
        {"a": one(gpus=[0, 1]), "b": one({"held": str(let_go)}), "c": one({"fail": "ValueError: no"})}
    )
    await running.crew.settled()
    worker = running.worker("b-0")
    asking = asyncio.create_task(asyncio.to_thread(ask, worker))
    await running.until(lambda: worker.figures.running == 1)
    rows = {row.facts.name: row for row in (await running.crew.board("experts.yaml")).rows}
    assert (rows["a-0"].place, rows["b-0"].place) == ("GPU 0,1", "1 thread")
    assert rows["b-0"].running == 1
    assert rows["b-0"].model == "model-b"
    memory = rows["b-0"].memory
    assert memory is not None
    assert memory > 10 * 1024**2  # the fake, its engine, its keeper
    assert "ValueError: no" in rows["c-0"].facts.why
    assert rows["c-0"].log.endswith("c-0.log")
    let_go.touch()
    await asking
    await running.until(lambda: worker.figures.tokens_per_second > 0)


# Sleep


def idle(orders: dict[str, Any] | None = None, after: str = "300ms", **more: Any) -> dict[str, Any]:
    return {"sleep_after": after, **one(orders, **more)}


async def test_one_with_nothing_to_do_is_stopped_and_started_when_it_is_wanted(start: Begin, state: Path) -> None:
    running = await start({"a": idle({"load": 0.2})})
    await running.become("a-0", READY)
    worker = await running.become("a-0", ASLEEP)
    assert alive(state) == []
    assert worker.pid is None
    running.crew.want("client", Want("a", 1))
    await running.become("a-0", READY)
    assert running.states("a-0")[1:] == [READY, STOPPING, ASLEEP, WAKING, READY]
    facts = worker.facts
    assert (facts.wakes, facts.restarts) == (1, 0)
    assert facts.wake_seconds is not None
    assert facts.wake_seconds > 0.2
    assert facts.asleep_seconds > 0
    await asyncio.sleep(1.5)
    assert worker.state is READY  # as long as somebody waits
    running.crew.forget("client")
    await running.become("a-0", ASLEEP)


@pytest.mark.parametrize(
    ("level", "calls"),
    [
        (1, [["/sleep?level=1", ""], ["/wake_up", ""]]),
        (
            2,
            [
                ["/sleep?level=2", ""],
                ["/wake_up?tags=weights", ""],
                ["/collective_rpc", '{"method": "reload_weights"}'],
                ["/wake_up?tags=kv_cache", ""],
            ],
        ),
    ],
)
async def test_one_that_can_sleep_keeps_its_process(
    start: Begin, tmp_path: Path, level: int, calls: list[list[str]]
) -> None:
    record = tmp_path / "record"
    running = await start({"a": idle({"record": str(record)}, args="--enable-sleep-mode", sleep_level=level)})
    await running.become("a-0", READY)
    worker = await running.become("a-0", ASLEEP)
    pid = worker.pid
    assert pid is not None
    assert worker.facts.url is None
    running.crew.want("client", Want("a", 1))
    await running.become("a-0", READY)
    assert worker.pid == pid
    assert worker.facts.wakes == 1
    assert notes(record, "asked") == calls


async def test_one_that_does_not_wake_up_is_started_anew(start: Begin, tmp_path: Path) -> None:
    record = tmp_path / "record"
    running = await start({"a": idle({"record": str(record), "wakes": False}, args="--enable-sleep-mode")})
    await running.become("a-0", READY)
    worker = await running.become("a-0", ASLEEP)
    pid = worker.pid
    running.crew.want("client", Want("a", 1))
    await running.become("a-0", READY)
    assert worker.pid != pid
    assert len(notes(record, "started")) == 2


async def test_one_that_dies_in_its_sleep_sleeps_on_and_is_started_when_it_is_wanted(
    start: Begin, tmp_path: Path, state: Path
) -> None:
    record = tmp_path / "record"
    running = await start({"a": idle({"record": str(record)}, args="--enable-sleep-mode")})
    await running.become("a-0", READY)
    worker = await running.become("a-0", ASLEEP)
    psutil.Process(notes(record, "started")[0]["pid"]).kill()
    await running.until(lambda: worker.pid is None and not alive(state))
    await asyncio.sleep(0.5)  # in which one that is wanted would be there again
    assert worker.state is ASLEEP
    assert alive(state) == []
    running.crew.want("client", Want("a", 1))
    await running.become("a-0", READY)
    assert len(notes(record, "started")) == 2


async def test_those_that_share_a_gpu_take_turns(start: Begin, tmp_path: Path, state: Path) -> None:
    experts = {
        name: idle({"record": str(tmp_path / name)}, after="10m", gpus=[0], args="--enable-sleep-mode")
        for name in ("a", "b")
    }
    running = await start({**experts, "c": idle({}, after="10m", gpus=[1])})
    await running.crew.settled()
    assert [facts.state for facts in running.crew.told().workers] == [READY, ASLEEP, READY]
    together: list[set[str]] = []  # that were up at once

    def both() -> bool:
        together.append({name for name in ("a-0", "b-0") if running.worker(name).state in (READY, WAKING, STOPPING)})
        return running.worker("b-0").state is READY

    running.crew.want("client", Want("b", 2))
    await running.until(both)
    assert max(map(len, together)) == 1
    assert running.worker("a-0").state is ASLEEP
    assert notes(tmp_path / "a", "asked") == [["/sleep?level=1", ""]]
    assert running.worker("c-0").state is READY


async def test_a_wish_that_is_over_before_anything_came_of_it_lets_no_two_wake(start: Begin) -> None:
    running = await start({name: idle({}, gpus=[0]) for name in ("a", "b")})
    await running.crew.settled()
    await running.become("a-0", ASLEEP)

    def b_is_up_alone() -> bool:
        assert ASLEEP in (running.worker("a-0").state, running.worker("b-0").state)
        return running.worker("b-0").state is READY

    running.crew.want("client", Want("a", 1))
    running.crew.forget("client")
    running.crew.want("another", Want("b", 1))
    await running.until(b_is_up_alone)


# Another file


async def test_another_file_starts_stops_and_leaves_alone(start: Begin, state: Path) -> None:
    running = await start({"a": one(), "b": one(replicas=2)})
    await running.crew.settled()
    kept = (running.worker("a-0").pid, running.worker("b-0").pid)
    gone = running.worker("b-1")
    await running.change({"a": {**one(), "sleep_after": "1h"}, "b": one(replicas=1), "c": one()})
    await running.become("c-0", READY)
    assert (running.worker("a-0").pid, running.worker("b-0").pid) == kept
    assert [facts.name for facts in running.crew.told().workers] == ["a-0", "b-0", "c-0"]
    await running.until(lambda: gone.pid is None)
    assert len(named(alive(state), "keeper.py")) == 3


async def test_one_that_is_launched_otherwise_serves_until_its_successor_does(
    start: Begin, tmp_path: Path, state: Path
) -> None:
    running = await start({"a": one()})
    await running.crew.settled()
    old = running.worker("a-0")
    url = old.url
    slower = one({"load": 0.5, "record": str(tmp_path / "record")}, args="--new")
    await running.change({"a": slower})
    await running.change({"a": slower, "b": {"upstream": {"vllm": ["http://127.0.0.1:1/v1"]}}})

    def replaced() -> bool:
        worker = running.worker("a-0")
        assert worker.facts.url == url or worker is not old
        return worker is not old

    assert not replaced()
    await running.until(replaced)
    assert running.worker("a-0").state is READY
    await running.until(lambda: old.pid is None)
    assert "--new" in " ".join(running.worker("a-0").log_file.read_text().splitlines()[0:1])
    assert len(named(alive(state), "keeper.py")) == len(notes(tmp_path / "record", "started")) == 1


def keepers(state: Path) -> set[int]:
    """Their pids. What one has just forked, and is not the server yet, goes by its name too."""
    found = {process.pid: process for process in named(alive(state), "keeper.py")}
    parents = {}
    for pid, process in found.items():
        with contextlib.suppress(psutil.NoSuchProcess):
            parents[pid] = process.ppid()
    return {pid for pid, parent in parents.items() if parent not in found}


async def test_on_the_same_gpu_the_old_one_ends_first(start: Begin, state: Path) -> None:
    running = await start({"a": one(gpus=[0])})
    await running.crew.settled()
    old = running.worker("a-0")
    await running.change({"a": one(gpus=[0], args="--new")})
    most = 0

    def replaced() -> bool:
        nonlocal most
        most = max(most, len(keepers(state)))
        return running.worker("a-0") is not old and running.worker("a-0").state is READY

    await running.until(replaced)
    assert most == 1
    await running.change({"a": one(gpus=[1], args="--new")})  # and on another it need not
    second = running.worker("a-0")
    await running.until(lambda: running.worker("a-0") is not second)
    assert second.state is STOPPING
    assert running.worker("a-0").state is READY


async def test_a_successor_that_does_not_start_leaves_the_old_one_be(start: Begin, state: Path) -> None:
    running = await start({"a": one()})
    await running.crew.settled()
    old, pid = running.worker("a-0"), running.worker("a-0").pid
    await running.change({"a": one({"fail": "ValueError: nonsense"})})
    await running.until(lambda: "ValueError: nonsense" in old.why)
    assert running.worker("a-0") is old
    assert (old.state, old.pid) == (READY, pid)
    await running.change({"a": one()})  # as it was
    await running.until(lambda: len(named(alive(state), "keeper.py")) == 1)
    await asyncio.sleep(0.6)
    assert running.worker("a-0") is old
    assert old.pid == pid
    await running.change({"a": one(args="--other")})
    await running.until(lambda: running.worker("a-0") is not old)


async def test_other_adapters_start_nothing_anew_and_are_there_from_the_next_start_on(
    start: Begin, tmp_path: Path
) -> None:
    record = tmp_path / "record"
    base = one({"record": str(record)}, args="--enable-lora")
    running = await start({"a": base})
    await running.crew.settled()
    worker, pid = running.worker("a-0"), running.worker("a-0").pid
    sql = {"upstream": {"worker": "a", "adapter": {"name": "sql", "path": "x/sql"}}}
    await running.change({"a": base, "b": sql})
    assert running.worker("a-0") is worker
    assert worker.pid == pid
    psutil.Process(notes(record, "started")[0]["pid"]).kill()
    await running.until(lambda: worker.restarts == 1)
    assert "sql=x/sql" in notes(record, "started")[1]["argv"]


async def test_sleeping_ones_that_are_launched_otherwise_stay_asleep(start: Begin, state: Path) -> None:
    experts = {name: idle(after="10m", gpus=[0]) for name in ("a", "b")}
    running = await start(experts)
    await running.become("a-0", READY)
    sleeper = running.worker("b-0")
    await running.change({"a": experts["a"], "b": idle(after="10m", gpus=[0], args="--new")})
    await running.until(lambda: running.worker("b-0") is not sleeper)
    assert running.worker("b-0").state is ASLEEP
    assert running.worker("a-0").state is READY


@pytest.mark.parametrize("how", [None, "--enable-sleep-mode"])
async def test_one_that_sleeps_when_the_file_no_longer_lets_it_is_woken(start: Begin, how: str | None) -> None:
    words: dict[str, Any] = {"args": [how]} if how else {}
    running = await start({"a": idle(**words), "b": one()})
    await running.become("a-0", ASLEEP)
    await running.change({"a": {"upstream": idle(**words)["upstream"]}, "b": one()})
    await running.become("a-0", READY)


async def test_one_that_is_launched_otherwise_and_may_not_sleep_any_more_is_woken(start: Begin) -> None:
    running = await start({"a": idle()})
    await running.become("a-0", ASLEEP)
    await running.change({"a": one(args=["--new"])})
    await running.become("a-0", READY)
    assert running.worker("a-0").plan.args == ("--new",)


def test_what_the_fake_is_told_is_json() -> None:
    assert json.loads(launches({"load": 1})["launch"]["env"]["FAKE_VLLM"]) == {"load": 1}
