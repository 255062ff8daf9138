"""The keeper of one model server, as a program of its own: nothing of the server lives on once it or its owner is gone.

keeper.py PORT GRACE_SECONDS PROGRAM [ARGUMENT …]

It says {"url": …} on standard output as soon as GET /health answers 200. Where its standard input ends, as it does when the owner
is gone, however it went, or on SIGTERM, the server is asked to end and has GRACE_SECONDS for it; SIGQUIT does not wait. When the
server ends by itself, whatever status it leaves with, the keeper ends what it left behind and leaves with 1.

Standard library alone, and run without site packages: there is one of these for each worker.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

LOOK_SECONDS = 0.25
PROBE_SECONDS = 1.0
LOADING_GRACE_SECONDS = 5.0  # of a server that serves nobody yet
TRACKER_SECONDS = 2.0
STARTS = "starts "  # with which its first line begins, and so this start's part of the log
PROCESSES = Path("/proc/self/stat")
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


class Keeper:
    """`status` is that of the server, None while it runs."""

    def __init__(self, port: int, grace: float, command: list[str]) -> None:
        self.port, self.grace, self.command = port, grace, command
        self.pid = 0
        self.status: int | None = None
        self.ready = self.asked = self.hurried = False
        self._held: socket.socket | None = None

    def run(self, announce: Callable[[bytes], None]) -> int:
        """Until the server ended and nothing of it is left. The exit status."""
        wake = self._listen()
        prctl(PR_SET_CHILD_SUBREAPER)
        say(f"{STARTS}{shlex.join(self.command)}")
        try:
            self._spawn()
        except OSError as error:
            say(f"{self.command[0]} cannot be run: {error.strerror}")
            return 1
        while not self.asked:
            self._reap()
            if self.status is not None:
                say(f"the server ended by itself, with status {self.status}")
                break
            if not self.ready and healthy(self.port) and listens_below(os.getpid(), self.port):
                self.ready = True
                self._held = held(self.port)
                announce(json.dumps({"url": f"http://127.0.0.1:{self.port}/v1"}).encode() + b"\n")
            self._wait(wake, None if self.ready else LOOK_SECONDS)
        else:
            self._ask_to_end(wake)
        self._end_all()
        return 0 if self.asked else 1

    def _listen(self) -> int:
        """Signals are taken note of, and wake whoever waits at the descriptor that this returns."""
        wake, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else os.pipe()
        os.set_blocking(write, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: self._on_end(False))
        signal.signal(signal.SIGQUIT, lambda *_: self._on_end(True))
        return wake

    def _on_end(self, hurried: bool) -> None:
        self.asked, self.hurried = True, self.hurried or hurried

    def _spawn(self) -> None:
        parent, libc = os.getpid(), _libc()

        def before() -> None:  # in the child: the kernel kills it when the keeper dies, kill -9 included
            if libc is not None:
                libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
                if os.getppid() != parent:
                    os._exit(1)

        process = subprocess.Popen(  # noqa: S603 - the owner's command
            self.command, stdin=subprocess.DEVNULL, stdout=2, stderr=2, start_new_session=True,
            preexec_fn=before,
        )  # fmt: skip
        self.pid = process.pid
        process.returncode = 0  # it is waited for here: see _reap

    def _wait(self, wake: int, seconds: float | None) -> None:
        """Until something happens, so long at most."""
        watched = [wake] if self.asked else [wake, 0]
        readable, _, _ = select.select(watched, [], [], seconds)
        if wake in readable:
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 4096)
        if 0 in readable and not os.read(0, 4096):
            self.asked = True

    def _ask_to_end(self, wake: int) -> None:
        if not self.hurried:
            self._signal(self.pid, signal.SIGTERM)
        end = time.monotonic() + (self.grace if self.ready else min(self.grace, LOADING_GRACE_SECONDS))
        while not self.hurried and (left := end - time.monotonic()) > 0:
            self._reap()
            if self.status is not None:
                return
            self._wait(wake, left)
        say("the server is killed" if self.hurried else "the server did not end in time, and is killed")

    def _reap(self) -> None:
        """Take note of every process that ended: the server, and what was left to this one by others."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.pid:
                self.status = os.waitstatus_to_exitcode(status)

    def _end_all(self) -> None:
        """Kill whatever is below this process. Those that tidy shared memory end by themselves when the others are gone."""
        if not PROCESSES.exists():  # a system that does not tell: the server's own group is what can be reached
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        spared = time.monotonic() + TRACKER_SECONDS
        while True:
            self._reap()
            left = descendants(os.getpid())
            if not left and (self.status is not None or PROCESSES.exists()):
                return
            for pid in left:
                if time.monotonic() > spared or not tidies(pid):
                    self._signal(pid, signal.SIGKILL)
            time.sleep(0.02)

    def _signal(self, pid: int, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _libc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" else None


def prctl(option: int) -> None:
    """Set a property of this process, where the system is Linux."""
    if libc := _libc():
        libc.prctl(option, 1, 0, 0, 0)


def healthy(port: int) -> bool:
    """Whether GET /health answers 200 there."""
    try:
        with socket.create_connection(("127.0.0.1", port), PROBE_SECONDS) as connection:
            connection.settimeout(PROBE_SECONDS)
            connection.sendall(b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
            return connection.recv(64).split(b" ")[1:2] == [b"200"]
    except OSError:
        return False


def listens_below(root: int, port: int) -> bool:
    """Whether whoever listens at the port is a process below `root`, and no other program that took the port before the server
    did. Where the system does not tell who listens, it is."""
    listening = listeners(port)
    return not listening or any(not listening.isdisjoint(sockets(pid)) for pid in descendants(root))


def listeners(port: int) -> set[bytes]:
    """The inodes of the sockets that listen at the port, by /proc."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_bytes().splitlines()[1:]:
                fields = line.split()
                if fields[3] == b"0A" and int(fields[1].rpartition(b":")[2], 16) == port:
                    found.add(fields[9])
    return found


def sockets(pid: int) -> set[bytes]:
    """The inodes of the sockets that a process has open."""
    found = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(f"/proc/{pid}/fd/{name}".encode())
                if target.startswith(b"socket:["):
                    found.add(target[8:-1])
    return found


def held(port: int) -> socket.socket | None:
    """A socket beside the server's own: while it is there no other user can take the port, not even in the moment between the
    server's death and the word of it. None where the server does not share its port, as vLLM does."""
    holder = socket.socket()
    try:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", port))
    except (OSError, AttributeError):
        holder.close()
        return None
    return holder


def descendants(root: int) -> list[int]:
    """The processes below `root`, without those that ended. Empty where the system does not tell."""
    below: dict[int, list[tuple[int, bool]]] = {}
    for pid, parent, ended in processes():
        below.setdefault(parent, []).append((pid, ended))
    found, todo = [], [root]
    while todo:
        for pid, ended in below.get(todo.pop(), []):
            todo.append(pid)  # one whose main thread ended is a parent still, until its last thread did
            if not ended:
                found.append(pid)
    return found


def processes() -> list[tuple[int, int, bool]]:
    """Every process, its parent, and whether it ended and waits to be noted; by /proc."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_bytes().rpartition(b")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        found.append((int(path.parent.name), int(parent), state == b"Z"))
    return found


def tidies(pid: int) -> bool:
    """Whether it is one of Python's resource trackers: it removes what the others left in shared memory, and ends."""
    try:
        return b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def say(text: str) -> None:
    with contextlib.suppress(OSError):  # a full disk must not keep anything from being ended
        os.write(2, f"keeper: {text}\n".encode("utf-8", "replace"))


def main() -> None:
    port, grace, *command = sys.argv[1:]
    # Standard output is for the one line that the owner waits for; whatever the server prints goes to its log.
    told = os.dup(1)
    os.dup2(2, 1)

    def announce(text: bytes) -> None:
        with contextlib.suppress(OSError):  # the owner is gone: standard input says so
            os.write(told, text)

    sys.exit(Keeper(int(port), float(grace), command).run(announce))


if __name__ == "__main__":
    main()
