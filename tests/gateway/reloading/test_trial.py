"""The process of a trial, however it ends: it is gone, and what it was is said."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from gateway.jsonlines import line
from gateway.reloading.errors import ReloadError
from gateway.reloading.training import NICE
from gateway.reloading.trial import Task, Verdict, tried
from router.artifact import PACKAGED, read_manifest
from router.sources import Sources
from tests.fakes.upstream import PATIENCE
from tests.fakes.vllm_environment import words

PROGRAM = "gateway.reloading.training"
LONG = 300.0  # seconds for a trial: it steps back for all others, and gets a tenth or less of a busy processor
pytestmark = pytest.mark.timeout(400)


def shipped() -> str:
    """The name of the router that is packaged."""
    return read_manifest(PACKAGED).heads_file.removeprefix("heads-").removesuffix(".npz")


def task(state: Path, folder: Path = PACKAGED, retrain: bool = True, tests: str | None = None, text: str = "") -> Task:
    examples = "".join(f"\n      - May clause {i} of a lease be enforced in court?" for i in range(8))
    legal = f"domains:\n  legal:\n    examples:{examples}\n"
    expert = '{model: m, domains: [%s], upstream: {vllm: ["http://127.0.0.1:9/v1"]}}' % ("legal" if retrain else "code")
    whole = text or f"version: 1\n{legal if retrain else ''}experts:\n  one: {expert}\n"
    return Task(Sources(Path("experts.yaml"), {"experts.yaml": whole}), state, folder, shipped(), retrain, tests, False)


def trials() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if PROGRAM in " ".join(words(child))]


async def there() -> psutil.Process:
    """The process of the trial that was just begun."""
    async with asyncio.timeout(PATIENCE):
        while not (found := trials()):  # noqa: ASYNC110 - processes tell nobody
            await asyncio.sleep(0.01)
    return found[0]


@contextlib.asynccontextmanager
async def begun(state: Path) -> AsyncIterator[tuple[asyncio.Task[Verdict], psutil.Process]]:
    trying = asyncio.create_task(tried(task(state), LONG, lambda progress: None))
    try:
        yield trying, await there()
    finally:
        trying.cancel()
        await asyncio.gather(trying, return_exceptions=True)
        assert trials() == []


async def test_one_that_the_system_kills_is_said_to_be_killed(tmp_path: Path) -> None:
    async with begun(tmp_path) as (trying, process):
        process.send_signal(signal.SIGKILL)
        with pytest.raises(ReloadError, match="killed by the system, as it does where memory is short") as raised:
            await trying
        assert raised.value.code == "training_failed"


async def test_one_that_dies_says_its_status(tmp_path: Path) -> None:
    async with begun(tmp_path) as (trying, process):
        process.send_signal(signal.SIGSEGV)
        with pytest.raises(ReloadError, match=r"died \(status -11\)"):
            await trying


async def test_one_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with pytest.raises(ReloadError, match=r"took more than 0\.2 seconds"):
        await tried(task(tmp_path), 0.2, lambda progress: None)
    assert trials() == []


async def test_one_that_is_given_up_is_ended(tmp_path: Path) -> None:
    async with begun(tmp_path) as (trying, process):
        trying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await trying
        assert not process.is_running()


def test_one_whose_gateway_is_gone_leaves(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-m", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stdin is not None
    process.stdin.write(line(task(tmp_path)))
    process.stdin.close()
    assert process.wait(LONG) == 0
    assert list(tmp_path.glob("router*")) == []


async def test_it_steps_back_has_no_keys_and_runs_the_tests_on_what_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOE_GATEWAY_ADMIN_KEY", "hush")
    tests = "version: 1\ntests:\n  - {prompt: Fix the loop in my Python function, expert: one, domain: code}\n"
    trying = asyncio.create_task(tried(task(tmp_path, retrain=False, tests=tests), LONG, lambda progress: None))
    process = await there()
    seen, wanted = (0, {"MOE_GATEWAY_ADMIN_KEY": ""}), min(os.nice(0) + NICE, 19)
    with contextlib.suppress(psutil.NoSuchProcess):
        while not trying.done() and seen[0] != wanted:
            seen = process.nice(), process.environ()
            await asyncio.sleep(0.01)
    assert seen[0] == wanted
    assert "MOE_GATEWAY_ADMIN_KEY" not in seen[1]
    verdict = await trying
    assert (verdict.folder, verdict.objections) == (PACKAGED, [])


@pytest.mark.parametrize("spoilt", ["{", "version: 1\nexperts: {}"])
async def test_what_is_wrong_with_the_file_is_said_as_it_is_elsewhere(tmp_path: Path, spoilt: str) -> None:
    with pytest.raises(ReloadError, match=r"experts\.yaml:\d+:\d+: ") as raised:
        await tried(task(tmp_path, text=spoilt), LONG, lambda progress: None)
    assert raised.value.code == "invalid_config"
