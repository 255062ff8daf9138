"""A model server for the pages' addresses: it has every model that they name, and answers in a few words."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WORDS = ["A", " few", " words", "."]
USAGE = {"prompt_tokens": 12, "completion_tokens": len(WORDS), "total_tokens": 12 + len(WORDS)}
WINDOW = 262_144


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, models: Sequence[str]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.models = models

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that left; nobody is told."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            listed = [
                {"id": name, "object": "model", "owned_by": "vllm", "max_model_len": WINDOW}
                for name in self.server.models
            ]
            self.answer({"object": "list", "data": listed})
        elif self.path == "/version":
            self.answer({"version": "0.20.0"})
        else:
            self.answer({}, 200 if self.path == "/health" else 404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path != "/v1/chat/completions":
            self.answer({}, 404)
        elif body.get("stream"):
            self.stream(body)
        else:
            message = {"role": "assistant", "content": "".join(WORDS)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self.answer(shaped(body, "chat.completion", [choice]) | {"usage": USAGE})

    def answer(self, body: object, status: int = 200) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def stream(self, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        deltas = [{"role": "assistant", "content": ""}, *({"content": word} for word in WORDS)]
        choices = [[{"index": 0, "delta": delta, "finish_reason": None}] for delta in deltas]
        events = [shaped(body, "chat.completion.chunk", one) for one in choices]
        events.append(shaped(body, "chat.completion.chunk", [{"index": 0, "delta": {}, "finish_reason": "stop"}]))
        if (body.get("stream_options") or {}).get("include_usage"):
            events.append(shaped(body, "chat.completion.chunk", []) | {"usage": USAGE})
        for event in events:
            self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


def shaped(body: dict[str, Any], kind: str, choices: list[Any]) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": body.get("model"), "choices": choices}


@contextmanager
def model_server(models: Sequence[str]) -> Iterator[str]:
    """Its host and port."""
    server = Server(models)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
