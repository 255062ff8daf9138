"""A server that answers GET with pages that are known before."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def pages(bodies: Mapping[str, str], key: str | None = None, status: int = 200) -> Iterator[str]:
    """The address of a server with a body for each path, told with `status`; 404 elsewhere, and 401 without the key."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = key is None or self.headers["authorization"] == f"Bearer {key}"
            self.send_response(401 if not known else status if self.path in bodies else 404)
            self.end_headers()
            self.wfile.write(bodies.get(self.path, "").encode() if known else b"")

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
