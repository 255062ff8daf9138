"""A program that does as `vllm serve` does, as far as whoever launches it can see: it is made to by FAKE_VLLM in its environment.

FAKE_VLLM is JSON: `load` seconds until it serves (0), `fail` is what it prints before it leaves with 1, `taken` says how often the
port is in use before it is not, `shares_port` lets others have it too (as vLLM does), `never` serves never, `stubborn` ignores
SIGTERM, `drains` is how long its end takes, `alone` has no engine, `seconds` is how long an answer takes, `held` is a file that
answers wait for, `engine_dies` seconds after it began to serve, `wakes` says whether it wakes up. `record` is a folder that it
leaves notes in: how it was started, and what it was asked.
Its engine is a process in a session of its own that ignores SIGTERM, with a worker below it that has left its parent.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ENGINE = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    if os.fork() == 0:  # whose parent ends at once
        os.setsid()
        time.sleep(600)
    os._exit(0)
os.wait()
time.sleep(600)
"""


class Fake:
    def __init__(self) -> None:
        self.orders: dict[str, Any] = json.loads(os.environ.get("FAKE_VLLM", "{}"))
        self.running = self.ended = self.tokens = 0
        self.asleep = False
        self.draining = threading.Event()
        self.lock = threading.Lock()
        self.record = Path(self.orders["record"]) if "record" in self.orders else None

    def note(self, name: str, line: object) -> None:
        if self.record is not None:
            self.record.mkdir(parents=True, exist_ok=True)
            with (self.record / name).open("a") as file:
                file.write(json.dumps(line) + "\n")

    def count(self, name: str) -> int:
        file = self.record / name if self.record is not None else None
        return len(file.read_text().splitlines()) if file is not None and file.exists() else 0

    def metrics(self) -> bytes:
        label = '{engine="0",model_name="fake"}'
        lines = [
            f"vllm:num_requests_running{label} {float(self.running)}",
            f"vllm:num_requests_waiting{label} 0.0",
            f"vllm:generation_tokens_total{label} {float(self.tokens)}",
            f'vllm:request_success_total{{engine="0",finished_reason="stop",model_name="fake"}} {float(self.ended)}',
            f"vllm:kv_cache_usage_perc{label} 0.0",
        ]
        return ("\n".join(lines) + "\n").encode()


class Server(ThreadingHTTPServer):
    """Says nothing of who hung up: what it prints is the worker's log."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    fake: Fake
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/metrics":
            self.answer(200, self.fake.metrics(), "text/plain")
        elif self.path == "/v1/models":
            models = [{"id": argument("--served-model-name")}]
            self.answer(200, json.dumps({"object": "list", "data": models}).encode())
        else:
            self.answer(200 if self.path == "/health" else 404, b"")

    def do_POST(self) -> None:
        fake = self.fake
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path.startswith(("/sleep", "/wake_up", "/collective_rpc")):
            fake.note("asked", [self.path, body.decode()])
            allowed = os.environ.get("VLLM_SERVER_DEV_MODE") == "1"
            if self.path.startswith("/wake_up") and fake.orders.get("wakes") is False:
                allowed = False
            self.answer(200 if allowed else 404, b"{}")
            return
        if self.headers.get("authorization") != f"Bearer {os.environ.get('VLLM_API_KEY')}":
            self.answer(401, b'{"error":"Unauthorized"}')
            return
        with fake.lock:
            fake.running += 1
        time.sleep(fake.orders.get("seconds", 0))
        while "held" in fake.orders and not Path(fake.orders["held"]).exists():
            time.sleep(0.01)
        with fake.lock:
            fake.running, fake.ended, fake.tokens = fake.running - 1, fake.ended + 1, fake.tokens + 5
        fake.note("answered", os.getpid())
        message = {"role": "assistant", "content": f"I am {argument('--served-model-name')}"}
        usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        answer = {
            "id": "x",
            "object": "chat.completion",
            "created": 1,
            "model": "fake",
            "choices": choices,
            "usage": usage,
        }
        self.answer(200, json.dumps(answer).encode())

    def answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def argument(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


def main() -> None:
    fake = Fake()
    orders = fake.orders
    fake.note("started", {"argv": sys.argv, "env": dict(os.environ), "cwd": os.getcwd(), "pid": os.getpid()})
    print(f"INFO loading {sys.argv[2]}", flush=True)
    signal.signal(signal.SIGTERM, signal.SIG_IGN if orders.get("stubborn") else lambda *_: fake.draining.set())
    if "fail" in orders:
        print(orders["fail"], file=sys.stderr, flush=True)
        sys.exit(1)
    engine = None
    if not orders.get("alone"):
        engine = subprocess.Popen([sys.executable, "-IS", "-c", ENGINE], start_new_session=True)
        fake.note("engines", engine.pid)
    if "taken" in orders and fake.count("started") <= orders["taken"]:
        print("OSError: [Errno 98] Address already in use", flush=True)
        sys.exit(1)
    end = time.monotonic() + (3600 if orders.get("never") else orders.get("load", 0))
    while time.monotonic() < end and not fake.draining.is_set():
        time.sleep(0.02)
    Handler.fake = fake
    Server.allow_reuse_port = orders.get("shares_port", False)
    server = Server(("127.0.0.1", int(argument("--port"))), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    dies = time.monotonic() + orders["engine_dies"] if "engine_dies" in orders else None
    while not fake.draining.is_set() or fake.running:
        if engine is not None and dies is not None and time.monotonic() > dies:
            engine.kill()
        if engine is not None and engine.poll() is not None:
            print("ERROR EngineDeadError: EngineCore encountered an issue.", flush=True)
            sys.exit(0)
        time.sleep(0.02)
    time.sleep(orders.get("drains", 0))
    server.server_close()
    if engine is not None:
        engine.kill()
        engine.wait()
    print("INFO drained and gone", flush=True)


if __name__ == "__main__":
    main()
