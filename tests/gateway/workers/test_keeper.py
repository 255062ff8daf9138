"""The keeper, over a fake vLLM: whatever is killed, nothing of the server lives on."""

from __future__ import annotations

import json
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from gateway.workers.keeper import descendants
from gateway.workers.launching import CREW_VARIABLE
from gateway.workers.remains import KEEPER
from tests.fakes.vllm_environment import alive, named, none_alive, notes, soon

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux alone tells of orphans")


class Kept:
    """A keeper with the fake that it keeps."""

    def __init__(
        self,
        program: Path,
        state: Path,
        grace: float = 30.0,
        log: Path | None = None,
        before: Callable[[int], object] = lambda port: None,
        **orders: Any,
    ) -> None:
        self.state, self.record = state, state.parent / "record"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        words = [str(program), "serve", "model", "--served-model-name", "m", "--port", str(self.port)]
        orders = {"record": str(self.record), **orders}
        before(self.port)
        self.log = log or state.parent / "kept.log"
        with self.log.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-IS", str(KEEPER), str(self.port), str(grace), *words],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True,
                env={**os.environ, CREW_VARIABLE: str(state), "FAKE_VLLM": json.dumps(orders)},
            )  # fmt: skip

    def ready(self) -> str:
        """What it announces."""
        assert self.process.stdout is not None
        return str(json.loads(self.process.stdout.readline())["url"])

    @property
    def server(self) -> psutil.Process:
        return psutil.Process(notes(self.record, "started")[-1]["pid"])

    @property
    def engine(self) -> psutil.Process:
        return psutil.Process(notes(self.record, "engines")[-1])

    def close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def kept(environment: Path, state: Path) -> Iterator[Any]:
    made: list[Kept] = []

    def make(program: Path | None = None, **orders: Any) -> Kept:
        made.append(Kept(program or environment / "bin" / "vllm", state, **orders))
        return made[-1]

    yield make
    for one in made:
        one.close()
        one.process.wait(30)


class Stranger:
    """Another program, which says that it is healthy at any port; `asked` once somebody wanted to know."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.server: ThreadingHTTPServer | None = None

    def take(self, port: int) -> None:
        asked = self.asked

        class Healthy(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.set()
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Healthy)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    one = Stranger()
    yield one
    if one.server is not None:
        one.server.shutdown()
        one.server.server_close()


def test_it_says_where_the_server_is_once_that_is_healthy(kept: Any) -> None:
    one = kept(load=0.3)
    assert one.ready() == f"http://127.0.0.1:{one.port}/v1"
    assert one.log.read_text().startswith("keeper: starts ")
    assert len(named(alive(one.state), "keeper.py")) == 1
    assert soon(lambda: len(alive(one.state)) == 4)  # the keeper, the server, its engine, and the worker of that


@pytest.mark.parametrize("how", ["end of input", "SIGTERM", "SIGQUIT"])
def test_asked_to_end_it_ends_everything_and_leaves_with_0(kept: Any, how: str) -> None:
    one = kept()
    one.ready()
    assert soon(lambda: len(alive(one.state)) == 4)
    if how == "end of input":
        one.process.stdin.close()
    else:
        one.process.send_signal(signal.Signals[how])
    assert one.process.wait(30) == 0
    assert alive(one.state) == []
    assert ("drained and gone" in one.log.read_text()) == (how != "SIGQUIT")


def test_a_server_that_does_not_end_is_killed_after_its_grace(kept: Any) -> None:
    one = kept(stubborn=True, grace=0.3)
    one.ready()
    one.process.send_signal(signal.SIGTERM)
    assert one.process.wait(30) == 0
    assert alive(one.state) == []
    assert "did not end in time" in one.log.read_text()


def test_while_it_drains_a_second_word_does_not_wait(kept: Any) -> None:
    one = kept(stubborn=True)
    one.ready()
    one.process.stdin.close()
    assert one.server.is_running()
    one.process.send_signal(signal.SIGQUIT)
    assert one.process.wait(30) == 0
    assert alive(one.state) == []


def test_a_server_that_loads_still_has_to_end_soon(kept: Any) -> None:
    one = kept(never=True)
    assert soon(lambda: notes(one.record, "engines"))
    one.process.stdin.close()
    assert one.process.wait(30) == 0
    assert alive(one.state) == []


@LINUX
@pytest.mark.parametrize("who", ["server", "engine"])
def test_where_a_part_is_killed_the_rest_is_ended_and_that_is_a_death(kept: Any, who: str) -> None:
    one = kept()
    one.ready()
    assert soon(lambda: len(alive(one.state)) == 4)
    getattr(one, who).kill()
    assert one.process.wait(30) == 1  # though the server leaves with 0 when its engine is dead
    assert alive(one.state) == []
    assert f"ended by itself, with status {-9 if who == 'server' else 0}" in one.log.read_text()


@LINUX
def test_where_the_keeper_is_killed_the_server_goes_with_it(kept: Any) -> None:
    one = kept(alone=True)
    one.ready()
    assert len(alive(one.state)) == 2
    one.process.kill()
    one.process.wait(30)
    assert none_alive(one.state)


@LINUX
def test_below_one_whose_main_thread_ended_everything_is_found() -> None:
    """As vLLM's server is for a moment when it is killed: a zombie by its state, and the parent of its engine still."""
    number = {"x86_64": 60, "aarch64": 93}[platform.machine()]  # exit of one thread
    program = (
        "import ctypes, subprocess, sys, threading, time\n"
        "child = subprocess.Popen([sys.executable, '-IS', '-c', 'import time; time.sleep(600)'])\n"
        "threading.Thread(target=time.sleep, args=(600,)).start()\n"
        "print(child.pid, flush=True)\n"
        f"ctypes.CDLL(None).syscall({number}, 0)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-IS", "-c", program], stdout=subprocess.PIPE, start_new_session=True
    ) as server:
        try:
            assert server.stdout is not None
            child = int(server.stdout.readline())
            assert soon(lambda: psutil.Process(server.pid).status() == psutil.STATUS_ZOMBIE)
            assert psutil.Process(child).ppid() == server.pid
            assert child in descendants(os.getpid())
            assert server.pid not in descendants(os.getpid())
        finally:
            os.killpg(server.pid, signal.SIGKILL)


def test_a_program_that_is_not_there_is_told(kept: Any, tmp_path: Path) -> None:
    one = kept(tmp_path / "absent")
    assert one.process.wait(30) == 1
    assert "absent cannot be run: No such file" in one.log.read_text()


@LINUX
def test_another_program_that_took_the_port_first_is_not_taken_for_the_server(kept: Any, stranger: Any) -> None:
    """A user who reads the port from the command line has seconds to take it: nobody is sent there."""
    one = kept(load=1.0, before=stranger.take)
    assert one.process.stdout.read() == b""
    assert one.process.wait(30) == 1
    assert stranger.asked.is_set()
    assert "Address already in use" in one.log.read_text()


@LINUX
def test_where_the_server_dies_nobody_takes_its_port_before_that_is_known(kept: Any) -> None:
    one = kept(shares_port=True)
    one.ready()
    one.process.send_signal(signal.SIGSTOP)  # nobody hears of the death yet
    one.server.kill()
    assert soon(lambda: one.server.status() == psutil.STATUS_ZOMBIE)
    with pytest.raises(OSError, match="in use"), socket.create_server(("127.0.0.1", one.port)):
        pass
    one.process.send_signal(signal.SIGCONT)
    assert one.process.wait(30) == 1


@LINUX
def test_a_full_disk_keeps_nothing_from_being_ended(kept: Any, tmp_path: Path) -> None:
    program, began = tmp_path / "silent", tmp_path / "began"
    program.write_text(
        f"#!{sys.executable} -IS\nimport signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"open({str(began)!r}, 'w').close()\ntime.sleep(600)\n"
    )
    program.chmod(0o755)
    one = kept(program, grace=0.3, log=Path("/dev/full"))
    assert soon(began.exists)
    one.process.send_signal(signal.SIGTERM)
    assert one.process.wait(30) == 0
    assert alive(one.state) == []


@LINUX
def test_trackers_of_shared_memory_are_left_to_tidy_up(kept: Any, tmp_path: Path) -> None:
    """A segment that a killed server leaves is removed by Python's own tracker, which ends when the server is gone."""
    program = tmp_path / "server"
    name = f"moe-test-{os.getpid()}"
    program.write_text(
        f"#!{sys.executable}\n"
        "import os, time\n"
        "from multiprocessing.shared_memory import SharedMemory\n"
        f"memory = SharedMemory({name!r}, create=True, size=64)\n"
        f"open({str(tmp_path / 'made')!r}, 'w').close()\n"
        "time.sleep(600)\n"
    )
    program.chmod(0o755)
    one = kept(program)
    segment = Path("/dev/shm") / name  # noqa: S108 - the name is this test's own
    assert soon((tmp_path / "made").exists)
    assert segment.exists()
    one.process.send_signal(signal.SIGQUIT)
    assert one.process.wait(30) == 0
    assert not segment.exists()
