"""`serve --processes N` as the command that users start: shared work, exact sums, replaced processes, an orderly end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import pytest

from tests.fakes.upstream import PATIENCE, FakeServer, chunk, fake_server, silent, streams, usage_chunk, well
from tests.integration.conftest import ROOT, STARTING, Command, metric, serve

WORDS = 40
STREAM = (*(chunk({"content": "word "}) for _ in range(WORDS)), chunk({}, "stop"), usage_chunk(), b"data: [DONE]\n\n")
BODY = {"model": "one", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def expert() -> Iterator[FakeServer]:
    with fake_server() as made:
        yield made


@pytest.fixture
def config(expert: FakeServer, tmp_path: Path) -> Path:
    path = tmp_path / "experts.yaml"
    price = {"input": 1.0, "output": 2.0}
    experts = {"one": {"model": "m", "domains": ["general"], "upstream": {"vllm": [expert.url]}, "price": price}}
    path.write_text(json.dumps({"version": 1, "experts": experts}))
    return path


def until(condition: Callable[[], bool], within: float = 2 * PATIENCE) -> bool:
    end = time.monotonic() + within
    while time.monotonic() < end:
        try:
            if condition():
                return True
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    return condition()


def processes(command: Command) -> list[psutil.Process]:
    return [child for child in psutil.Process(command.process.pid).children() if serves(child)]


def serves(process: psutil.Process) -> bool:
    """Whether it is one of those that serve; one that ends while it is looked at is none."""
    try:
        return "gateway.dataplane" in process.cmdline()
    except psutil.NoSuchProcess:  # or a zombie, which is one of these
        return False


def ask(command: Command, model: str = "one") -> int:
    """One request on a connection of its own, which any of the processes may get."""
    body = {**BODY, "model": model, "max_tokens": 1}
    return httpx.post(f"{command.url}/v1/chat/completions", json=body, timeout=2 * PATIENCE).status_code


def told(command: Command, name: str, **labels: str) -> float:
    return metric(httpx.get(f"{command.url}/metrics", timeout=2 * PATIENCE).text, name, **labels)


def refusals(command: Command) -> set[tuple[str, str]]:
    """What several processes say of the newest file, and of the one that runs."""
    told = [httpx.get(f"{command.url}/admin/config", timeout=2 * PATIENCE).json() for _ in range(12)]
    return {(one["status"], one["config"]) for one in told}


def events(command: Command) -> list[dict[str, object]]:
    return [json.loads(line) for line in command.screen if line.startswith("{")]


def streaming(command: Command) -> socket.socket:
    """A stream that has begun."""
    host, port = command.url.removeprefix("http://").split(":")
    body = json.dumps({**BODY, "stream": True})
    connection = socket.create_connection((host, int(port)), timeout=2 * PATIENCE)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    connection.sendall((head + body).encode())
    return connection


def refuses(command: Command) -> bool:
    """Whether nobody listens any more."""
    host, port = command.url.removeprefix("http://").split(":")
    try:
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()
    except ConnectionRefusedError:
        return True
    return False


def rest(connection: socket.socket) -> bytes:
    with connection, connection.makefile("rb") as reader:
        return reader.read()


@pytest.mark.timeout(400)
def test_what_several_processes_count_is_exact_whoever_dies(config: Path, expert: FakeServer) -> None:
    with serve("--config", str(config), "--processes", "2") as command, ExitStack() as sockets:
        assert "2 processes" in "".join(command.screen)
        both = processes(command)
        assert len(both) == 2
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda _: ask(command), range(60))) == {200}
        # The costs of a request are counted last: one process may tell what another is in the midst of.
        spent = pytest.approx(60 * (11 * 1.0 + 4 * 2.0) / 1e6, abs=1e-9)
        assert until(lambda: told(command, "moe_cost_usd_total") == spent)
        assert told(command, "moe_requests_total", code="200") == 60
        assert told(command, "moe_requests_in_flight") == 0
        assert told(command, "moe_build_info") == told(command, "moe_replica_up") == 1
        counted = {kind: told(command, "moe_tokens_total", kind=kind) for kind in ("input", "cached_input", "output")}
        assert counted == {"input": 60 * 8, "cached_input": 60 * 3, "output": 60 * 4}
        held = sum(process.memory_info().rss for process in both)
        assert held / 2 < told(command, "moe_process_resident_memory_bytes") < held * 2
        assert told(command, "moe_event_loop_lag_seconds_count") > 0
        expert.behaviour = streams(*STREAM[:-1], then="hang")
        held = [streaming(command) for _ in range(16)]  # all at one process: one time in thirty thousand
        for connection in held:
            sockets.callback(connection.close)
        assert until(lambda: told(command, "moe_requests_in_flight") == 16)
        assert until(lambda: told(command, "moe_open_connections") == 17)  # with the one that asks
        used = told(command, "moe_process_cpu_seconds_total")

        both[0].kill()
        assert until(
            lambda: len(processes(command)) == 2 and any(e["event"] == "process replaced" for e in events(command))
        )
        survivors = told(command, "moe_requests_in_flight")
        assert 0 < survivors < 16  # those of the dead one are in flight no more
        assert until(lambda: told(command, "moe_open_connections") == survivors + 1)
        assert told(command, "moe_process_cpu_seconds_total") >= used
        sockets.close()
        assert until(lambda: told(command, "moe_requests_in_flight") == 0)
        expert.behaviour = well
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda _: ask(command), range(40))) == {200}
        ended = 100 + survivors  # what was lost in mid-request is counted by nobody
        counts = ("moe_requests_total", "moe_request_duration_seconds_count", "moe_upstream_attempts_total")
        assert until(lambda: [told(command, name) for name in counts] == [ended] * 3)
        assert told(command, "moe_requests_total", code="200") == ended
        assert [e["exit"] for e in events(command) if e["event"] == "process died"] == [-9]

        children = processes(command)
        command.process.kill()
        gone, alive = psutil.wait_procs(children, timeout=PATIENCE)
        assert (len(gone), alive) == (2, [])  # none outlives its parent


@pytest.mark.parametrize("count", ["1", "2"])
def test_sigterm_lets_every_stream_end_and_leaves_with_status_0(config: Path, expert: FakeServer, count: str) -> None:
    expert.behaviour = streams(*STREAM, pause=0.08)
    arguments = ("--config", str(config), "--processes", count, "--drain-delay", "3")
    each_afresh = httpx.Limits(max_keepalive_connections=0)
    with (
        serve(*arguments) as command,  # clients are made beforehand: to make one takes a while
        httpx.Client(base_url=command.url, timeout=2 * PATIENCE) as kept,
        httpx.Client(base_url=command.url, timeout=2 * PATIENCE, limits=each_afresh) as new,
    ):
        assert kept.get("/ready").status_code == 200
        last: list[httpx.Response] = []

        def drains(client: httpx.Client) -> bool:
            last[:] = [client.get("/ready")]
            return bool(last[0].json()["status"] == "draining")

        open_streams = [streaming(command) for _ in range(6)]
        assert until(lambda: len(expert.requests) == 6)
        command.process.send_signal(signal.SIGTERM)
        assert until(lambda: drains(new))
        assert until(lambda: drains(kept))  # which may be another process's, and that one may be told a moment later
        assert (last[0].status_code, last[0].headers["connection"]) == (503, "close")
        for answer in map(rest, open_streams):
            assert answer.count(b'"word "') == WORDS
            assert answer.endswith(b"0\r\n\r\n")
        assert command.process.wait(PATIENCE) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{command.url}/health")
    assert [e["outcome"] for e in events(command) if e["event"] == "request"] == ["ok"] * 6
    assert list((config.parent / ".moe-gateway").glob("metrics-*")) == []


@pytest.mark.timeout(400)
def test_what_one_process_is_told_all_know_a_new_file_and_the_successor_of_a_worker(tmp_path: Path) -> None:
    config = tmp_path / "experts.yaml"
    expert = {
        "model": "m",
        "domains": ["general"],
        "upstream": {"embedded": "smollm2"},
        "price": {"input": 1.0, "output": 2.0},
    }
    config.write_text(json.dumps({"version": 1, "experts": {"one": expert}}))
    with serve("--config", str(config), "--processes", "2") as command:
        assert {ask(command) for _ in range(8)} == {200}

        # Asked of one process, another experts.yaml is taken up by all.
        before = config.read_text()
        config.write_text(before.replace('"one"', '"two"'))
        answer = httpx.post(f"{command.url}/admin/reload", timeout=2 * PATIENCE)
        assert answer.status_code == 200, answer.text
        assert until(lambda: [ask(command, "two") for _ in range(12)] == [200] * 12)
        assert told(command, "moe_config_info") == 1
        assert until(lambda: told(command, "moe_requests_total", expert="one") == 0)  # the expert is gone from all
        assert told(command, "moe_requests_total", expert="two") >= 12
        assert set(answer.json()["changes"]) <= {
            "expert one removed",
            "expert two added",
        }  # none where it was seen before
        config.write_text(before)
        command.process.send_signal(signal.SIGHUP)
        assert until(lambda: [ask(command) for _ in range(12)] == [200] * 12)

        # A file that is wrong changes nothing in any of them, is told by all, and is not what a successor begins with.
        served = httpx.get(f"{command.url}/admin/config", timeout=2 * PATIENCE).json()
        config.write_text("experts: [")
        assert until(lambda: refusals(command) == {("refused", served["config"])})
        assert told(command, "moe_config_last_reload_successful") == 0
        refused = httpx.post(f"{command.url}/admin/reload", timeout=2 * PATIENCE)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_config")
        processes(command)[0].kill()
        assert until(lambda: any(e["event"] == "process replaced" for e in events(command)), within=STARTING)
        assert until(lambda: refusals(command) == {("refused", served["config"])})
        assert {ask(command) for _ in range(12)} == {200}
        config.write_text(before)
        assert until(lambda: refusals(command) == {("serving", served["config"])})
        assert told(command, "moe_config_last_reload_successful") == 1

        (worker,) = command.worker_pids()
        assert psutil.Process(worker).ppid() == command.process.pid
        os.kill(worker, signal.SIGKILL)
        assert until(lambda: [ask(command) for _ in range(12)] == [200] * 12, within=STARTING)
        (successor,) = command.worker_pids()
        assert successor != worker
    assert command.process.returncode == 0
    assert not psutil.pid_exists(successor)


def test_a_second_signal_does_not_wait(config: Path, expert: FakeServer) -> None:
    expert.behaviour = silent
    with serve("--config", str(config), "--processes", "2", "--drain-seconds", "60") as command:
        open_requests = [streaming(command) for _ in range(4)]
        assert until(lambda: len(expert.requests) == 4)
        command.process.send_signal(signal.SIGINT)
        assert until(lambda: refuses(command))
        assert command.process.poll() is None
        command.process.send_signal(signal.SIGINT)
        assert all(answer.startswith(b"HTTP/1.1 503 ") for answer in map(rest, open_requests))
        assert command.process.wait(PATIENCE) == 0
    assert [e["outcome"] for e in events(command) if e["event"] == "request"] == ["cancelled"] * 4


def test_a_process_that_cannot_start_ends_them_all(config: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "router").mkdir(parents=True)
    (state / "router" / "manifest.json").write_text("{")
    command = [sys.executable, "-m", "gateway.cli", "serve", "--port", "0", "--processes", "2"]
    done = subprocess.run(
        [*command, "--config", str(config), "--state", str(state)],
        cwd=ROOT, env={**os.environ, "COLUMNS": "200"}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "moe-gateway train" in done.stderr
    assert done.stderr.count("\n") == 1
