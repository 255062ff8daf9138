"""moe-gateway top, over a real gateway: as a command whose output is read, and on a terminal of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import httpx
import pytest

from gateway.commands.top import View
from gateway.watching.scrape import Scrape, ScrapeError
from tests.fakes.terminal import terminal
from tests.fakes.upstream import PATIENCE, FakeServer, fake_server
from tests.integration.conftest import Running, Start, artifact, experts_yaml, servers, start

__all__ = ["artifact", "servers", "start"]  # fixtures

BODY = {"model": "one", "messages": [{"role": "user", "content": "Hello"}]}


def ask(gateway: Running) -> None:
    httpx.post(f"{gateway.url}/v1/chat/completions", json=BODY, timeout=60).raise_for_status()


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway.cli", "top", *arguments]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=100, stdin=subprocess.DEVNULL
    )


def test_it_looks_once_where_there_is_no_terminal(start: Start, servers: list[FakeServer]) -> None:
    gateway = start(experts_yaml(*servers[:2]))
    ask(gateway)
    shown = run("--url", gateway.url, "--interval", "0.2")
    assert shown.returncode == 0, shown.stderr
    assert re.search(r"^one +up ", shown.stdout, re.MULTILINE)
    assert "\x1b" not in shown.stdout


def test_json_has_the_same_figures(start: Start, servers: list[FakeServer]) -> None:
    gateway = start(experts_yaml(*servers[:2]))
    ask(gateway)
    assert gateway.settled("moe_requests_total", 1)
    told = json.loads(run("--url", f"{gateway.url}/v1", "--interval", "0.2", "--json").stdout)
    assert [expert["expert"] for expert in told["experts"]] == ["one", "two"]
    assert [expert["health"] for expert in told["experts"]] == ["up", "up"]
    assert told["gateway"]["spent"] == gateway.metric("moe_cost_usd_total")


def test_what_is_wrong_is_said_with_the_status_of_wrong_calls() -> None:
    wrong = run("--url", "file:///etc/passwd")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "--url takes an address" in wrong.stderr


def test_protected_metrics_are_said_to_need_a_key(start: Start, servers: list[FakeServer]) -> None:
    gateway = start(experts_yaml(servers[0]), keys={"ops": "the-key-of-ops"}, protect_metrics=True)
    refused = run("--url", gateway.url)
    assert refused.returncode == 1
    assert "MOE_GATEWAY_KEY" in refused.stderr
    assert run("--url", gateway.url, "--interval", "0.2", MOE_GATEWAY_KEY="the-key-of-ops").returncode == 0


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A gateway that can be stopped for a while."""
    with fake_server() as server:
        config = tmp_path / "experts.yaml"
        config.write_text(experts_yaml(server))
        port_file = tmp_path / "said"
        with port_file.open("wb") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "gateway.cli", "serve", "--config", str(config), "--port", "0"],
                stdout=said, stderr=said,
            )  # fmt: skip
        try:
            until, found = time.monotonic() + 90, None
            while found is None and process.poll() is None and time.monotonic() < until:
                found = re.search(r"answers at (http://127\.0\.0\.1:\d+)/v1", port_file.read_text())
                time.sleep(0.05)
            assert found, port_file.read_text()
            yield process, found[1]
        finally:
            process.kill()
            process.wait()


def test_it_lives_on_a_terminal(apart: tuple[subprocess.Popen[bytes], str]) -> None:
    """Keys, a gateway that hangs and comes back, and an end that leaves the terminal as it was."""
    process, url = apart
    with terminal("top", "--url", url, "--interval", "0.2") as screen:
        assert screen.until(r"one +up")
        assert screen.until("q quit")
        screen.press("s")
        assert screen.until("req/s↓")
        screen.press("p")
        assert screen.until("paused")
        screen.press("p")
        assert screen.until("q quit")
        process.send_signal(signal.SIGSTOP)
        try:
            assert screen.until("does not answer: no answer in time; these are figures of")
        finally:
            process.send_signal(signal.SIGCONT)
        assert screen.until(r"one +up[^;]*q quit")
        screen.press("q")
        assert screen.process.wait(PATIENCE) == 0


def test_ctrl_c_ends_it_quietly(start: Start, servers: list[FakeServer]) -> None:
    gateway = start(experts_yaml(servers[0]))
    with terminal("top", "--url", gateway.url) as screen:
        assert screen.until("q quit")
        screen.process.send_signal(signal.SIGINT)
        assert screen.process.wait(PATIENCE) == 0
        assert "Traceback" not in screen.seen


def test_what_lies_around_an_outage_is_no_rate() -> None:
    """It may be another gateway that came back."""
    view = View("http://127.0.0.1:1", None, 1.0)
    total = frozenset({("expert", "coder"), ("code", "200")})
    for at, told in ((0.0, 10.0), (1.0, None), (60.0, 9000.0), (61.0, 9005.0)):
        asked: Future[Scrape] = Future()
        if told is None:
            asked.set_exception(ScrapeError("it does not answer"))
        else:
            asked.set_result(Scrape(at, {"moe_requests_total": {total: told}}))
        view.note(asked)
    assert view.window.rate("moe_requests_total") == 5
