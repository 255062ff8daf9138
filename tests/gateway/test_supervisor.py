"""The supervisor, over tiny programs: ready, garbage, death, restart, stop."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from collections.abc import Callable, Coroutine
from contextvars import Context
from pathlib import Path
from typing import Any, TypeVarTuple

import pytest

from gateway.workers import supervisor
from gateway.workers.supervisor import Worker, WorkerError

Ts = TypeVarTuple("Ts")
READY = """
import sys
print('{"url": "http://127.0.0.1:1/v1"}', flush=True)
"""
SERVES = READY + "sys.stdin.read()\n"
DIES = READY
STUBBORN = READY + "import time\ntime.sleep(600)\n"


class HurriedLoop(asyncio.SelectorEventLoop):
    """Sleeps of half a second and more pass at once and are told to `on_pause`; with `late` set every deadline is over."""

    def __init__(self) -> None:
        super().__init__()
        self.on_pause: Callable[[float], None] = lambda seconds: None
        self.late = False

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        if delay >= supervisor.FIRST_PAUSE_SECONDS:
            self.on_pause(delay)
            delay = 0
        return super().call_later(delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return super().call_at(self.time() if self.late else when, callback, *args, context=context)


def hurried(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=HurriedLoop) as runner:
        runner.run(work)


def loop() -> HurriedLoop:
    running = asyncio.get_running_loop()
    assert isinstance(running, HurriedLoop)
    return running


def worker(tmp_path: Path, program: str) -> Worker:
    return Worker("tiny", [sys.executable, "-S", "-c", program], tmp_path / "logs" / "tiny.log")


def down(tiny: Worker) -> bool:
    return tiny.url is None and tiny.pid is None


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(6000):  # a minute
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to be")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_worker_that_says_where_it_listens_is_up_until_it_is_stopped(tmp_path: Path) -> None:
    tiny = worker(tmp_path, SERVES)
    assert down(tiny)
    await tiny.start()
    pid = tiny.pid
    assert tiny.url == "http://127.0.0.1:1/v1"
    assert pid is not None
    assert alive(pid)
    await tiny.stop()
    assert down(tiny)
    assert not alive(pid)


async def test_the_child_is_told_its_key_and_inherits_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINY_COLOUR", "green")
    said = (
        "import os, json\nprint(json.dumps({'url': os.environ['MOE_GATEWAY_WORKER_KEY'] + os.environ['TINY_COLOUR']}))"
    )
    tiny = worker(tmp_path, f"{said}\nimport sys\nsys.stdin.read()")
    await tiny.start()
    assert tiny.url == f"{tiny.api_key}green"
    assert tiny.api_key != worker(tmp_path, SERVES).api_key
    await tiny.stop()


async def test_stopping_lets_the_child_finish_and_may_be_done_twice(tmp_path: Path) -> None:
    end = tmp_path / "ended"
    tiny = worker(tmp_path, SERVES + f"open({str(end)!r}, 'w').close()\n")
    await tiny.start()
    await asyncio.gather(tiny.stop(), tiny.stop())
    await tiny.stop()
    assert end.exists()
    assert tiny.restarts == 0


async def test_stopping_what_was_never_started_does_nothing(tmp_path: Path) -> None:
    tiny = worker(tmp_path, SERVES)
    await tiny.stop()
    assert down(tiny)


@pytest.mark.parametrize(
    "said",
    ["warming up", "[]", "{}", "5", '{"url": null}', '{"url": 5}', "\udcff", "[" * 60_000, "x" * 200_000],
    ids=["words", "list", "no url", "number", "null", "not a text", "no UTF-8", "nested", "endless"],
)
async def test_garbage_instead_of_an_address_fails_with_the_end_of_the_log(tmp_path: Path, said: str) -> None:
    line = said.encode("utf-8", "surrogateescape")
    noise = "import sys\nfor i in range(20): print('noise', i, file=sys.stderr, flush=True)\n"
    write = (
        f"sys.stdout.buffer.write({line[:1]!r} * {len(line)})"
        if len(line) > 1000
        else f"sys.stdout.buffer.write({line!r})"
    )
    tiny = worker(tmp_path, f"{noise}{write}\nprint(flush=True)\nsys.stdin.read()")
    try:
        with pytest.raises(WorkerError) as caught:
            await tiny.start()
        assert "tiny did not start" in str(caught.value)
        assert str(caught.value).endswith("noise 18\nnoise 19")
        assert "noise 3\n" not in str(caught.value)
        assert down(tiny)
    finally:
        await tiny.stop()


async def test_a_child_that_ends_before_it_is_ready_fails_the_start(tmp_path: Path) -> None:
    tiny = worker(tmp_path, "raise SystemExit('no model here')")
    with pytest.raises(WorkerError, match="no model here"):
        await tiny.start()
    assert down(tiny)


async def test_a_program_that_is_not_there_fails_the_start(tmp_path: Path) -> None:
    tiny = Worker("tiny", [str(tmp_path / "absent")], tmp_path / "tiny.log")
    with pytest.raises(WorkerError, match="tiny"):
        await tiny.start()


async def test_words_that_no_program_can_be_given_fail_the_start(tmp_path: Path) -> None:
    tiny = Worker("tiny", [sys.executable, "a\0b"], tmp_path / "tiny.log")
    with pytest.raises(WorkerError, match="tiny cannot be launched: embedded null byte"):
        await tiny.start()


async def test_a_log_that_cannot_be_written_fails_the_start(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where a folder should be")
    with pytest.raises(WorkerError, match="tiny"):
        await worker(tmp_path, SERVES).start()


def test_a_child_that_never_gets_ready_fails_the_start_and_is_ended(tmp_path: Path) -> None:
    async def work() -> None:
        loop().late = True
        tiny = worker(tmp_path, "import time\ntime.sleep(600)")
        with pytest.raises(WorkerError, match="was not ready within"):
            await tiny.start()
        assert down(tiny)

    hurried(work())


def test_a_child_that_ignores_its_closed_input_is_killed(tmp_path: Path) -> None:
    async def work() -> None:
        tiny = worker(tmp_path, STUBBORN)
        await tiny.start()
        pid = tiny.pid
        assert pid is not None
        loop().late = True
        await tiny.stop()
        assert not alive(pid)
        assert down(tiny)

    hurried(work())


def test_a_child_that_keeps_dying_is_restarted_after_pauses_that_grow(tmp_path: Path) -> None:
    async def work() -> None:
        tiny = worker(tmp_path, DIES)
        pauses: list[tuple[float, str | None, int | None]] = []
        loop().on_pause = lambda seconds: pauses.append((seconds, tiny.url, tiny.pid))
        await tiny.start()
        await until(lambda: tiny.restarts >= 4)
        await tiny.stop()
        lengths = [seconds for seconds, _, _ in pauses]
        assert lengths[0] == supervisor.FIRST_PAUSE_SECONDS
        assert all(a < b <= supervisor.LONGEST_PAUSE_SECONDS for a, b in itertools.pairwise(lengths[:5]))
        assert {(url, pid) for _, url, pid in pauses} == {(None, None)}

    hurried(work())


def test_the_pause_grows_no_further_than_the_longest(tmp_path: Path) -> None:
    async def work() -> None:
        tiny = worker(tmp_path, DIES)
        pauses: list[float] = []
        loop().on_pause = pauses.append
        await tiny.start()
        await until(lambda: len(pauses) >= 9)
        await tiny.stop()
        assert max(pauses) == pauses[8] == supervisor.LONGEST_PAUSE_SECONDS

    hurried(work())


def test_a_restart_that_fails_is_tried_again(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    program = f"""
import pathlib, sys
runs = pathlib.Path({str(runs)!r})
runs.write_text((runs.read_text() if runs.exists() else "") + "x")
turn = len(runs.read_text())
print("garbage" if turn == 2 else '{{"url": "http://127.0.0.1:%d/v1"}}' % turn, flush=True)
if turn > 1:
    sys.stdin.read()
"""

    async def work() -> None:
        tiny = worker(tmp_path, program)
        urls: list[str | None] = []
        loop().on_pause = lambda seconds: urls.append(tiny.url)
        await tiny.start()
        await until(lambda: tiny.restarts == 1)
        assert urls == [None, None]
        assert tiny.url == "http://127.0.0.1:3/v1"
        await tiny.stop()
        assert runs.read_text() == "xxx"

    hurried(work())


def test_a_child_that_was_killed_comes_back_under_the_same_key(tmp_path: Path) -> None:
    said = "import os, json, sys\nprint(json.dumps({'url': os.environ['MOE_GATEWAY_WORKER_KEY']}), flush=True)\n"

    async def work() -> None:
        tiny = worker(tmp_path, said + "sys.stdin.read()")
        await tiny.start()
        first = tiny.pid
        assert first is not None
        os.kill(first, 9)
        await until(lambda: tiny.restarts == 1)
        assert tiny.pid not in (None, first)
        assert tiny.url == tiny.api_key
        await tiny.stop()

    hurried(work())


async def test_stopping_while_a_restart_is_awaited_starts_no_new_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE_SECONDS", 3600.0)  # however late the stop comes
    runs = tmp_path / "runs"
    tiny = worker(tmp_path, f"open({str(runs)!r}, 'a').write('x')\n" + DIES)
    await tiny.start()
    await until(lambda: tiny.url is None)
    await tiny.stop()
    assert (tiny.url, tiny.pid, tiny.restarts) == (None, None, 0)
    assert runs.read_text() == "x"


def test_a_log_is_continued_not_begun_anew(tmp_path: Path) -> None:
    async def work() -> None:
        tiny = worker(tmp_path, "import sys\nprint('hello', file=sys.stderr, flush=True)\n" + DIES)
        await tiny.start()
        await until(lambda: tiny.restarts >= 1)
        await tiny.stop()
        assert tiny.log_file.read_text().splitlines()[:2] == ["hello", "hello"]

    hurried(work())
