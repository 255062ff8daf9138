"""`moe-gateway workers` and `serve --with-workers` as users run them, over fake vLLMs: whoever is killed, nothing lives on."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from typer.testing import CliRunner

from gateway.cli import app
from gateway.workers import reaching
from gateway.workers.child import OwnerChild
from gateway.workers.protocol import Crew, WorkerState, owner_file
from tests.fakes.vllm_environment import (
    PATIENCE,
    alive,
    launches,
    make_environment,
    named,
    none_alive,
    notes,
    soon,
    write_experts,
)
from tests.integration.conftest import Command, serve


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_environment(tmp_path_factory.mktemp("fake") / "venv")


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / ".moe-gateway"
    yield folder
    left = alive(folder)
    for process in left:
        process.kill()
    assert left == []


@pytest.fixture
def run(vllm: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """run("status", "--json"), with the experts.yaml of this test."""

    def done(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "gateway.cli", "workers", *words, "--config", str(tmp_path / "experts.yaml")]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "MOE_GATEWAY_VLLM": str(vllm)},
        )

    return done


@dataclass
class Up:
    """`moe-gateway workers up`, and what it has said so far."""

    process: subprocess.Popen[str]
    screen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.screen.append(line)

    def says(self, pattern: str) -> bool:
        ended = soon(lambda: re.search(pattern, self.said) or not self.reader.is_alive())
        return ended and bool(re.search(pattern, self.said))

    def leaves(self, seconds: float = PATIENCE) -> int:
        """The status that it ends with, when all that it said has been read."""
        status = self.process.wait(seconds)
        self.reader.join(PATIENCE)
        return status

    @property
    def said(self) -> str:
        return "".join(self.screen)


@pytest.fixture
def up(vllm: Path, tmp_path: Path, state: Path) -> Iterator[Callable[..., Up]]:
    """up(experts) starts the command."""
    with ExitStack() as stack:

        def started(experts: dict[str, dict[str, Any]]) -> Up:
            write_experts(tmp_path / "experts.yaml", experts)
            command = [sys.executable, "-m", "gateway.cli", "workers", "up", "--config", str(tmp_path / "experts.yaml")]
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                env={**os.environ, "MOE_GATEWAY_VLLM": str(vllm), "MOE_GATEWAY_KEYS": "team:hush"}, start_new_session=True,
            )  # fmt: skip
            one = Up(process)
            stack.callback(_end, one)
            return one

        yield started


def _end(one: Up) -> None:
    if one.process.poll() is None:
        one.process.terminate()
        try:
            one.process.wait(30)
        except subprocess.TimeoutExpired:
            one.process.kill()
            one.process.wait()
    one.reader.join(PATIENCE)
    assert one.process.stdout is not None
    one.process.stdout.close()


def one(orders: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"upstream": launches(orders, **more)}


def test_up_shows_its_progress_status_the_figures_and_down_ends_it(
    up: Callable[..., Up], run: Callable[..., subprocess.CompletedProcess[str]], state: Path
) -> None:
    command = up({"a": one({"load": 0.2}, replicas=2), "b": one(gpus=[3])})
    assert command.says(r"3 of 3 workers ready in \d+\.\d s; Ctrl-C stops them")
    for name in ("a-0", "a-1", "b-0"):
        assert re.search(rf"^{name}: starting model-{name[0]}$", command.said, re.MULTILINE)
        assert re.search(rf"^{name}: ready after \d+\.\d s$", command.said, re.MULTILINE)
    table = run("status")
    assert table.returncode == 0
    heads = table.stdout.splitlines()[0].split()
    assert heads == ["worker", "state", "since", "pid", "where", "memory", "run", "wait", "tok/s", "restarts", "model"]
    assert re.search(r"^b-0 +ready +\d+ s +\d+ +GPU 3 +0\.\d GiB +0 +0 +0\.0 +0 +model-b", table.stdout, re.MULTILINE)
    told = json.loads(run("status", "--json").stdout)
    assert told["owner"]["pid"] == command.process.pid
    assert [worker["name"] for worker in told["workers"]] == ["a-0", "a-1", "b-0"]
    assert all(worker["ready"] and worker["memory_bytes"] > 0 for worker in told["workers"])
    assert "api_key" not in str(told)
    log = run("logs", "a-0", "-n", "2")
    assert log.stdout.splitlines()[-1] == "INFO loading model-a"
    assert "there are: a-0, a-1, b-0" in run("logs", "../x").stderr
    ended = run("down")
    assert (ended.returncode, command.leaves()) == (0, 0)
    assert re.search(r"stopped 3 workers in \d+\.\d s", ended.stdout)
    assert alive(state) == []
    assert run("status").returncode == 1
    assert json.loads(run("status", "--json").stdout) == {"owner": None, "workers": []}
    assert (run("down").returncode, run("down").stdout) == (0, "no workers are up here\n")


def test_one_that_fails_is_told_with_its_log_and_the_others_stay(
    up: Callable[..., Up], run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    command = up({"a": one(), "bad": one({"fail": "vllm: error: unrecognized arguments: --nope"})})
    assert command.says("1 of 2 workers ready")
    assert re.search(r"bad-0: failed after .*vLLM does not know --nope", command.said)
    assert "│ vllm: error: unrecognized arguments: --nope" in command.said
    status = run("status")
    assert status.returncode == 1
    assert re.search(r"^a-0 +ready", status.stdout, re.MULTILINE)
    assert "bad-0: vllm: error: unrecognized arguments" in status.stdout
    command.process.send_signal(signal.SIGINT)
    assert command.leaves() == 0


def test_where_none_becomes_ready_it_ends_with_1(up: Callable[..., Up], state: Path) -> None:
    command = up({"a": one({"fail": "ValueError: the model is made of cheese"}, replicas=2)})
    assert command.leaves() == 1
    assert "│ ValueError: the model is made of cheese" in command.said
    assert "error: no worker became ready" in command.said
    assert not owner_file(state).exists()


def test_one_that_sleeps_again_before_another_fails_was_ready_all_the_same(
    up: Callable[..., Up], state: Path, tmp_path: Path
) -> None:
    record = tmp_path / "record"
    command = up(
        {
            "naps": {**one(args=["--enable-sleep-mode"]), "sleep_after": "100ms"},
            "never": one({"never": True, "record": str(record)}),
        }
    )
    assert command.says("naps-0: asleep")
    assert "never-0: failed" not in command.said
    assert soon(lambda: notes(record, "started"))
    psutil.Process(notes(record, "started")[0]["pid"]).kill()
    assert command.says("never-0: failed after")
    assert command.says("1 of 2 workers ready")
    assert command.process.poll() is None


def test_the_first_signal_waits_for_what_runs_and_the_second_does_not(up: Callable[..., Up], tmp_path: Path) -> None:
    command = up({"a": one({"stubborn": True, "seconds": 60})})
    assert command.says("1 of 1 workers ready")
    command.process.send_signal(signal.SIGTERM)
    assert command.says("a-0: stopping")
    time.sleep(1.5)
    assert command.process.poll() is None  # for a server that does not end when it is asked to
    command.process.send_signal(signal.SIGTERM)
    assert command.leaves() == 0


def test_a_second_owner_is_refused_and_the_first_goes_on(
    up: Callable[..., Up], run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """And reads experts.yaml again on SIGHUP."""
    command = up({"a": one()})
    assert command.says("1 of 1 workers ready")
    second = run("up")
    assert second.returncode == 1
    assert re.search("error: the workers of .* are up already", second.stderr)
    assert run("status").returncode == 0
    write_experts(tmp_path / "experts.yaml", {"b": one()})
    command.process.send_signal(signal.SIGHUP)
    assert command.says("b-0: ready")
    assert command.says("a-0: is no longer in the file")
    (tmp_path / "experts.yaml").write_text("version: 1\nexperts: {b: {model: m}}\n")
    command.process.send_signal(signal.SIGHUP)
    assert command.says("experts.yaml is not followed")
    assert command.process.poll() is None


def test_what_is_wrong_is_told_before_anything_starts(
    run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_experts(tmp_path / "experts.yaml", {"a": {"upstream": {"vllm": ["http://127.0.0.1:1/v1"]}}})
    assert "launches no workers" in run("up").stderr
    write_experts(tmp_path / "experts.yaml", {"a": one()})
    monkeypatch.setenv("MOE_GATEWAY_VLLM", str(tmp_path))
    command = [sys.executable, "-m", "gateway.cli", "workers", "up", "--config", str(tmp_path / "experts.yaml")]
    wrong = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert wrong.returncode == 1
    assert "no bin/vllm" in wrong.stderr


@pytest.mark.parametrize("who", ["owner", "keeper", "server", "engine", "all of them"])
def test_whoever_is_killed_nothing_lives_on(up: Callable[..., Up], state: Path, tmp_path: Path, who: str) -> None:
    record = tmp_path / "record"
    command = up({"a": one({"record": str(record)})})
    assert command.says("1 of 1 workers ready")
    assert soon(lambda: len(alive(state)) == 4)
    before = alive(state)
    keeper, server = named(before, "keeper.py")[0], psutil.Process(notes(record, "started")[0]["pid"])
    engine = psutil.Process(notes(record, "engines")[0])
    owner = psutil.Process(command.process.pid)
    killed = {"owner": [owner], "keeper": [keeper], "server": [server], "engine": [engine]}.get(who, [owner, keeper])
    for process in killed:
        process.suspend()  # so that of two none hears of the other's death
    for process in killed:
        process.kill()
    if who == "owner":
        assert none_alive(state)
    elif who == "all of them":  # with nobody left to clear up, the next owner does
        command.process.wait()
        assert soon(lambda: server not in alive(state))
        again = up({"a": one()})
        assert again.says("warning: ended what an earlier owner left, processes: [23]")
        assert again.says("1 of 1 workers ready")
        assert not set(before) & set(alive(state))
    else:
        assert command.says("a-0: died")
        assert soon(lambda: len(re.findall("a-0: ready", command.said)) == 2)
        assert soon(lambda: not set(before) & set(alive(state)))
        assert soon(lambda: len(alive(state)) == 4)


# Beside the gateway


@contextmanager
def gateway(vllm: Path, tmp_path: Path, *arguments: str) -> Iterator[Command]:
    words = ("--config", str(tmp_path / "experts.yaml"), *arguments)
    with serve(*words, environment={"MOE_GATEWAY_VLLM": str(vllm), "MOE_GATEWAY_KEYS": ""}) as command:
        yield command


def answer(command: Command, model: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
    reply = httpx.post(f"{command.url}/v1/chat/completions", json=body, timeout=30)
    return str(reply.json()["choices"][0]["message"]["content"]) if reply.status_code == 200 else str(reply.status_code)


@pytest.mark.timeout(240)
def test_serve_with_workers_starts_them_first_replaces_their_owner_and_ends_them_last(
    vllm: Path, tmp_path: Path, state: Path, run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    bad = {**one({"fail": "ValueError: no such weights"}), "fallbacks": ["a"]}
    write_experts(tmp_path / "experts.yaml", {"a": one({"load": 0.3}, replicas=2), "bad": bad})
    with gateway(vllm, tmp_path, "--with-workers") as command:
        shown = "".join(command.screen)
        assert re.search(r"a-[01]: ready after .*answers at", shown, re.DOTALL)
        assert re.search(r"launched vLLM × 2: .*\d ready", shown)
        # One that fails does not keep the gateway down: it is said, and its fallback answers.
        assert "│ ValueError: no such weights" in shown
        assert "warning: bad-0 did not become ready" in shown
        assert [answer(command, name) for name in ("a", "bad")] == ["I am model-a"] * 2
        ready = httpx.get(f"{command.url}/ready", timeout=PATIENCE).json()
        assert ready["experts"]["a"] == "ready" != ready["experts"]["bad"]

        before = alive(state)
        owner = json.loads(run("status", "--json").stdout)["owner"]["pid"]
        psutil.Process(owner).kill()
        assert soon(lambda: not set(before) & set(alive(state)))
        assert soon(lambda: answer(command, "a") == "I am model-a")
        assert json.loads(run("status", "--json").stdout)["owner"]["pid"] != owner
    assert command.process.returncode == 0
    assert alive(state) == []
    assert run("status").returncode == 1


@pytest.mark.timeout(240)
def test_where_the_parent_of_several_processes_is_killed_the_workers_end(
    vllm: Path, tmp_path: Path, state: Path
) -> None:
    write_experts(tmp_path / "experts.yaml", {"a": one()})
    with gateway(vllm, tmp_path, "--with-workers", "--processes", "2") as command:
        assert {answer(command, "a") for _ in range(6)} == {"I am model-a"}
        command.process.kill()
        assert none_alive(state)
        assert soon(lambda: not owner_file(state).exists())


@pytest.mark.timeout(240)
def test_without_an_owner_it_is_said_how_to_get_one_and_one_that_comes_later_is_used(
    vllm: Path, tmp_path: Path, state: Path, up: Callable[..., Up]
) -> None:
    write_experts(tmp_path / "experts.yaml", {"a": one()})
    with gateway(vllm, tmp_path) as command:
        shown = "".join(command.screen)
        assert re.search(r"warning: nobody runs the 1 workers .* run moe-gateway workers up --config", shown)
        assert "nobody runs them" in shown
        assert answer(command, "a") == "503"
        owner = up({"a": one()})
        assert soon(lambda: answer(command, "a") == "I am model-a")
        owner.process.send_signal(signal.SIGTERM)
        assert owner.leaves() == 0
        assert soon(lambda: answer(command, "a") == "503")


def test_an_owner_that_is_there_already_is_used_until_it_goes(
    vllm: Path, tmp_path: Path, state: Path, up: Callable[..., Up], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOE_GATEWAY_VLLM", str(vllm))
    first = up({"a": one()})
    assert first.says("1 of 1 workers ready")
    shown: list[Crew] = []
    with OwnerChild(tmp_path / "experts.yaml", state) as child:
        crew = child.wait(shown.append)
        assert crew is not None
        assert crew.workers[0].state is WorkerState.READY
        assert soon(lambda: child.starts > 1)  # it was refused
        first.process.terminate()
        assert first.leaves() == 0
        assert soon(owner_file(state).exists)  # the child's own
        assert child.wait(shown.append) is not None
        assert child.deaths == 0
    assert alive(state) == []


def test_an_owner_that_does_not_stay_is_not_waited_for_for_ever(tmp_path: Path, state: Path) -> None:
    (tmp_path / "experts.yaml").write_text("version: 2")
    with OwnerChild(tmp_path / "experts.yaml", state) as child:
        assert child.wait(lambda crew: None) is None


def test_an_owner_that_hangs_is_named(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaching.Owner.hear, "__defaults__", (0.2,))
    config = state.parent / "experts.yaml"
    owner_file(state).parent.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="moe-") as folder, socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{folder}/s")
        silent.listen()
        owner_file(state).write_text(json.dumps({"socket": f"{folder}/s", "pid": 4321}))
        owner_file(state).chmod(0o600)
        result = CliRunner().invoke(app, ["workers", "status", "--config", str(config), "--state", str(state)])
    assert result.exit_code == 1
    assert "process 4321, does not answer" in " ".join(result.stderr.split())
