"""Several processes count together: sums are exact whoever is asked, and stay so when one of them is killed."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gateway import metricfiles
from gateway.metricfiles import fresh_folder
from tests.integration.conftest import ROOT, metric

# A process that counts as ours do: `handle N` N requests, `hold N` in flight, `up B` its only replica; `tell` prints /metrics.
# `serve E` describes the experts E, `retire` those before them, and `ask E` is a request that the expert E answers.
PROGRAM = """
import sys
from gateway import metricfiles
metricfiles.join(int(sys.argv[1]))
from gateway.exchange import Attempt, Exchange, Outcome
from gateway.metrics import Metrics
from gateway.replica import Replica
from gateway.upstreams.base import FixedAddress
from gateway.usage import Usage
from tests.fakes.memory import experts_file, router_of

file = experts_file({"coder": {}})
replica = Replica("coder-0", FixedAddress("http://a.test/v1"), up=True)
metrics = Metrics()
routers = [router_of(file)]
metrics.describe(routers[0], [replica], tuple(file.experts))
print("ready", flush=True)
for line in sys.stdin:
    verb, _, value = line.strip().partition(" ")
    if verb == "handle":
        for i in range(int(value)):
            exchange = Exchange("r", "chat.completions")
            exchange.finished = exchange.started + (0.015 if i % 2 else 1.0)
            exchange.outcome, exchange.status = Outcome.OK, 200
            metrics.observe(exchange)
    elif verb == "hold":
        metrics.hold("coder", int(value))
    elif verb == "watch":
        replica = Replica(value, FixedAddress("http://a.test/v1"), up=True)
        metrics.describe(router_of(file), [replica], tuple(file.experts))
    elif verb == "serve":
        routers.append(router_of(experts_file({expert: {} for expert in value.split()})))
        metrics.describe(routers[-1], [Replica(f"{e}-0", FixedAddress("http://a.test/v1")) for e in value.split()], value.split())
    elif verb == "retire":
        metrics.retire(routers.pop(0))
    elif verb == "ask":
        exchange = Exchange("r", "chat.completions", expert_id=value, usage=Usage(input=3), expert=file.experts["coder"])
        exchange.attempts.append(Attempt(value, f"{value}-0", 0.0, Outcome.OK, 0.1))
        exchange.observers = (metrics.observe,)
        exchange.finish(Outcome.OK, 200)
    elif verb == "up":
        replica.up = value == "1"
        metrics.refresh()
    elif verb == "tell":
        print(metrics.exposition()[0].decode() + "# EOF", flush=True)
    print("done", flush=True)
"""


class Counting:
    def __init__(self, folder: Path, number: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(number)],
            cwd=ROOT,
            env={**os.environ, metricfiles.VARIABLE: str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._until("ready")

    def do(self, *lines: str) -> str:
        assert self.process.stdin is not None
        said = ""
        for line in lines:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            said += self._until("done")
        return said

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.close()

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()

    def _until(self, word: str) -> str:
        assert self.process.stdout is not None
        said = ""
        while (line := self.process.stdout.readline()).strip() != word:
            assert line, f"it ended with {self.process.poll()}"
            said += line
        return said


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def test_sums_are_exact_and_stay_so_when_a_process_is_killed_and_replaced(tmp_path: Path, stack: ExitStack) -> None:
    folder = stack.enter_context(fresh_folder(tmp_path))
    one, two = Counting(folder, 0), Counting(folder, 1)
    stack.callback(one.close)
    one.do("handle 7", "hold 2", "up 0")
    told = two.do("handle 4", "hold 3", "up 1", "tell")
    name = "moe_request_duration_seconds"
    assert one.do("tell") == told
    assert metric(told, "moe_requests_total", code="200", expert="none") == 11
    assert metric(told, f"{name}_count") == 11
    assert metric(told, f"{name}_bucket", le="+Inf") == 11
    assert metric(told, f"{name}_bucket", le="0.02") == 5
    assert metric(told, f"{name}_sum") == pytest.approx(6 * 1.0 + 5 * 0.015)
    assert metric(told, "moe_requests_in_flight", expert="coder") == 5
    assert metric(told, "moe_replica_up", replica="coder-0") == 1  # one of them may ask it
    assert metric(told, "moe_replica_state", replica="coder-0", state="down") == 1  # and one may not
    assert metric(told, "moe_config_info") == metric(told, "moe_build_info") == metric(told, "moe_router_info") == 1
    assert 'pid="' not in told

    two.kill()
    metricfiles.forget(folder, 1)
    told = one.do("tell")
    assert metric(told, "moe_requests_total") == 11
    assert metric(told, "moe_requests_in_flight", expert="coder") == 2
    assert metric(told, "moe_replica_up", replica="coder-0") == 0
    files = len(list(folder.iterdir()))
    again = Counting(folder, 1)
    stack.callback(again.close)
    told = again.do("handle 5", "tell")
    assert metric(told, "moe_requests_total") == metric(told, f"{name}_count") == 16
    assert metric(told, "moe_requests_in_flight", expert="coder") == 2
    assert len(list(folder.iterdir())) <= files + 3  # those of its gauges


def test_what_a_process_speaks_of_no_more_is_told_until_none_does(tmp_path: Path, stack: ExitStack) -> None:
    folder = stack.enter_context(fresh_folder(tmp_path))
    one, two = Counting(folder, 0), Counting(folder, 1)
    stack.callback(one.close)
    stack.callback(two.close)
    told = one.do("watch coder-1", "tell")
    assert [metric(told, "moe_replica_up", replica=name) for name in ("coder-0", "coder-1")] == [1, 1]
    told = two.do("watch coder-1", "tell")
    assert 'replica="coder-0"' not in told
    assert metric(told, "moe_replica_up", replica="coder-1") == 1
    assert metric(one.do("watch coder-0", "tell"), "moe_replica_up", replica="coder-0") == 1


def test_what_a_process_counted_of_an_expert_is_told_until_the_last_of_them_retires_it(
    tmp_path: Path, stack: ExitStack
) -> None:
    folder = stack.enter_context(fresh_folder(tmp_path))
    one, two, three = (Counting(folder, number) for number in range(3))
    for counting in (one, two, three):
        stack.callback(counting.close)
        told = counting.do("serve coder other", "retire", "ask coder", "ask other", "tell")
    assert metric(told, "moe_requests_total", expert="coder") == metric(told, "moe_requests_total", expert="other") == 3
    three.kill()
    metricfiles.forget(folder, 2)  # what it counted stays; it speaks of nobody any more
    assert metric(one.do("serve other", "tell"), "moe_requests_total", expert="coder") == 3
    two.do("serve other", "retire", "ask coder")  # a request that ended late
    told = one.do("tell")
    assert metric(told, "moe_requests_total", expert="coder") == 4
    assert metric(told, "moe_requests_in_flight", expert="coder") == 0
    told = one.do("retire", "tell")
    assert '"coder"' not in told
    assert told == two.do("tell")
    assert metric(told, "moe_tokens_total", expert="other", kind="input") == 9
    assert metric(told, "moe_upstream_attempts_total") == metric(told, "moe_requests_total") == 3
    told = two.do("serve coder other", "ask coder", "tell")
    assert metric(told, "moe_requests_total", expert="coder") == 5  # it goes on where it was
    assert "moe_roll" not in told


def test_the_newest_time_of_loading_is_told(tmp_path: Path, stack: ExitStack) -> None:
    folder = stack.enter_context(fresh_folder(tmp_path))
    for number in (1, 0):
        counting = Counting(folder, number)
        stack.callback(counting.close)
        told = counting.do("tell")
    seen = metric(told, "moe_config_last_success_timestamp_seconds")
    assert abs(time.time() - seen) < 300
    again = Counting(folder, 2)
    stack.callback(again.close)
    assert seen < metric(again.do("tell"), "moe_config_last_success_timestamp_seconds") < seen + 300


def test_the_folder_is_private_and_gone_afterwards(tmp_path: Path) -> None:
    with fresh_folder(tmp_path / "state") as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert folder.parent == tmp_path / "state"
        (folder / "counter_0.db").write_bytes(b"")
    assert not folder.exists()


def test_what_killed_gateways_left_is_removed_and_what_others_use_is_not(tmp_path: Path) -> None:
    left, bare = tmp_path / "metrics-left", tmp_path / "metrics-bare"
    for folder in (left, bare):
        folder.mkdir()
        (folder / "counter_0.db").write_bytes(b"old")
    (left / "lock").touch()
    (tmp_path / "router").mkdir()
    with fresh_folder(tmp_path) as used, fresh_folder(tmp_path) as folder:
        assert used.exists()
        assert list(folder.glob("*.db")) == []
        assert not left.exists()
        assert not bare.exists()
        assert (tmp_path / "router").exists()
        with (used / "lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert not used.exists()


def test_one_process_counts_in_its_own_memory(tmp_path: Path) -> None:
    program = (
        "from prometheus_client import values\n"
        "from gateway.metrics import Metrics\n"
        "metrics = Metrics()\n"
        "print(getattr(values.ValueClass, '_multiprocess', False), type(metrics.requests.labels('a','b','c','d')._value).__name__)"
    )
    environment = {k: v for k, v in os.environ.items() if k != metricfiles.VARIABLE}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "MutexValue"]
