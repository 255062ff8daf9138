"""A server of the kind that acme_upstream asks: it says how many words it read."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Generate(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.answer({})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        words = len(asked["prompt"].split())
        self.answer({"text": f"I read {words} words.", "read": words, "written": 4})

    def answer(self, said: object) -> None:
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Generate).serve_forever()
