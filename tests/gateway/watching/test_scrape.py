from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest

from gateway.watching.scrape import ScrapeError, fetch, parse

TEXT = """\
# TYPE moe_build_info gauge
moe_build_info{version="0.1.0"} 1.0
# TYPE moe_requests_total counter
moe_requests_total{expert="coder",code="200"} 3.0
moe_requests_total{expert="coder",code="502"} 1.0
moe_requests_total{expert="general",code="200"} 2.0
# TYPE moe_requests_created gauge
moe_requests_created{expert="coder",code="200"} 1.7e9
# TYPE moe_requests_in_flight gauge
moe_requests_in_flight{expert="coder"} 2.0
"""


def test_series_are_summed_by_the_labels_that_are_asked_for() -> None:
    scrape = parse(TEXT, at=1.0)
    assert scrape.total("moe_requests_total") == 6
    assert scrape.total("moe_requests_total", expert="coder") == 4
    assert scrape.total("moe_requests_total", expert="coder", code="502") == 1
    assert scrape.gauge("moe_requests_in_flight") == 2
    assert scrape.values("moe_requests_total", "expert") == ["coder", "general"]
    assert scrape.labels("moe_build_info") == {"version": "0.1.0"}
    assert scrape.total("moe_nothing") == scrape.gauge("moe_nothing") == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [("<html>it works</html>", "Prometheus' text format"), ("other_build_info 1\n", "no moe-gateway"), ("", "no moe-")],
)
def test_what_is_no_gateway_is_said_to_be_none(text: str, said: str) -> None:
    with pytest.raises(ScrapeError, match=said):
        parse(text, at=0.0)


class _Server(BaseHTTPRequestHandler):
    code: ClassVar[int] = 200
    asked: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers["authorization"]))
        self.send_response(self.code)
        self.end_headers()
        self.wfile.write(TEXT.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    _Server.code, _Server.asked = 200, []
    with HTTPServer(("127.0.0.1", 0), _Server) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
def test_the_address_is_the_one_that_clients_have_too(url: str, end: str) -> None:
    assert fetch(url + end, "the-key", 30).total("moe_requests_total") == 6
    assert _Server.asked == [("/metrics", "Bearer the-key")]


def test_without_a_key_none_is_sent(url: str) -> None:
    fetch(url, None, 30)
    assert _Server.asked == [("/metrics", None)]


@pytest.mark.parametrize(("code", "said"), [(401, "MOE_GATEWAY_KEY"), (404, "answers 404"), (503, "answers 503")])
def test_a_refusal_is_told_in_words(url: str, code: int, said: str) -> None:
    _Server.code = code
    with pytest.raises(ScrapeError, match=said) as told:
        fetch(url, "the-key", 30)
    assert "the-key" not in str(told.value)


def test_nobody_there_is_told_in_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ScrapeError, match="does not answer: connection refused"):
        fetch(f"http://127.0.0.1:{port}", None, 30)


def test_one_that_says_nothing_is_not_waited_for() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(ScrapeError, match="does not answer: no answer in time"),
    ):
        fetch(f"http://127.0.0.1:{listener.getsockname()[1]}", None, 0.2)


def test_a_label_is_no_order_to_a_terminal_and_no_figure_is_endless() -> None:
    hostile = (
        '# TYPE moe_replica_up gauge\nmoe_replica_up{expert="a\x1b]0;x\x07\x9bb"} 1\nmoe_replica_up{expert="b"} NaN\n'
    )
    scrape = parse(TEXT + hostile, at=0.0)
    assert scrape.values("moe_replica_up", "expert") == ["a�]0;x��b"]


def test_a_key_goes_to_nobody_whom_an_answer_names(url: str) -> None:
    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("location", f"{url}/metrics")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        fetch(f"http://127.0.0.1:{server.server_port}", "the-key", 30)
        server.shutdown()
        thread.join()
    assert _Server.asked == [("/metrics", None)]
