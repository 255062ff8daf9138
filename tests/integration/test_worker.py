"""The embedded engine: started once, restarted when it dies, gone when its parent is."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
from openai import OpenAI

from tests.fakes.upstream import PATIENCE
from tests.integration.conftest import ROOT, STARTING, Command, serve


def until(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + STARTING
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def say(command: Command) -> str:
    client = OpenAI(base_url=f"{command.url}/v1", api_key="any", max_retries=0)
    answer = client.chat.completions.create(model="auto", messages=[{"role": "user", "content": "hi"}], max_tokens=4)
    return answer.choices[0].message.content or ""


def test_one_engine_serves_all_four_restarts_when_it_dies_and_leaves_when_its_parent_is_killed(tmp_path: Path) -> None:
    with serve("--config", str(ROOT / "experts.yaml"), "--state", str(tmp_path)) as command:
        (first,) = command.worker_pids()
        assert say(command)

        os.kill(first, signal.SIGKILL)
        assert until(lambda: not psutil.pid_exists(first))
        assert httpx.get(f"{command.url}/health", timeout=PATIENCE).status_code == 200
        assert until(lambda: command.worker_pids() not in ([], [first]))
        (second,) = command.worker_pids()
        assert until(lambda: httpx.get(f"{command.url}/ready", timeout=PATIENCE).status_code == 200)
        assert say(command)

        command.process.kill()  # -9: nothing of ours runs any more to clean up
        command.process.wait()
        assert until(lambda: not psutil.pid_exists(second))


def test_a_gateway_that_is_asked_to_stop_takes_its_engine_along(tmp_path: Path) -> None:
    with serve("--config", str(ROOT / "experts.yaml"), "--state", str(tmp_path)) as command:
        (worker,) = command.worker_pids()
        command.process.send_signal(signal.SIGINT)
        assert command.process.wait(PATIENCE) == 0
        assert until(lambda: not psutil.pid_exists(worker))
