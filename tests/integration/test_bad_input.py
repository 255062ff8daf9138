"""Whatever is sent, the answer is an error in the client's shape that names what is wrong, no expert is asked, no traceback is
written, and the connection serves on where the body was read. One table for every endpoint."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from gateway.routes.carried import KINDS
from tests.fakes.anything import EXPERTS, takes_anything
from tests.fakes.raw import RawServer, raw_server
from tests.fakes.upstream import PATIENCE, FakeServer
from tests.integration.conftest import Command, Start, experts_yaml, serve

HELLO = [{"role": "user", "content": "hello"}]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
# A good body of each endpoint, but for its last brace; `hi` is a text that is read, unless it is an embedding's.
GOOD: dict[str, bytes] = {
    "/v1/chat/completions": b'{"messages":[{"role":"user","content":"hi"}]',
    "/v1/completions": b'{"prompt":"hi"',
    "/v1/embeddings": b'{"input":"hi"',
    "/v1/responses": b'{"input":"hi"',
    "/v1/messages": b'{"max_tokens":5,"messages":[{"role":"user","content":"hi"}]',
    "/v1/messages/count_tokens": b'{"messages":[{"role":"user","content":"hi"}]',
    "/v1/route": b'{"messages":[{"role":"user","content":"hi"}]',
}


def saying(content: Any) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": content}]}).encode()


def more(extra: bytes) -> Callable[[bytes], bytes]:
    """A good body with more fields."""
    return lambda good: good + b"," + extra + b"}"


def instead(body: bytes) -> Callable[[bytes], bytes]:
    return lambda good: body


Bad = tuple[str, Callable[[bytes], bytes], int, str, str | None, str]
NOT_JSON: tuple[int, str, None] = (400, "invalid_json", None)
# What is wrong at every endpoint: the status, the code, the param, and what the message mentions.
EVERYWHERE: list[Bad] = [
    ("no body", lambda good: b"", *NOT_JSON, "JSON"),
    ("blanks", lambda good: b" \n", *NOT_JSON, "JSON"),
    ("cut off", lambda good: good, *NOT_JSON, "truncated"),
    ("cut off in a text", lambda good: good[: good.index(b"hi") + 1], *NOT_JSON, "truncated"),
    ("a form", lambda good: b"model=auto&prompt=hi", *NOT_JSON, "byte 0"),
    ("two documents", lambda good: (good + b"}") * 2, *NOT_JSON, "trailing"),
    ("a trailing comma", lambda good: good + b",}", *NOT_JSON, "JSON"),
    ("an array", lambda good: b"[1]", 400, "invalid_request", None, "object"),
    ("null", lambda good: b"null", 400, "invalid_request", None, "object"),
    ("a text", lambda good: b'"hi"', 400, "invalid_request", None, "object"),
    ("a byte order mark", lambda good: b"\xef\xbb\xbf" + good + b"}", *NOT_JSON, "byte order mark"),
    ("UTF-16", lambda good: (good + b"}").decode().encode("utf-16"), *NOT_JSON, "UTF-16"),
    ("UTF-16 without a mark", lambda good: (good + b"}").decode().encode("utf-16-be"), *NOT_JSON, "UTF-16"),
    ("Latin-1", lambda good: good.replace(b"hi", b"h\xe9") + b"}", *NOT_JSON, "UTF-8"),
    ("Latin-1 in what is not read", more(b'"zz":"\xe9"'), *NOT_JSON, "UTF-8"),
    ("Latin-1 in a name", more(b'"z\xe9":1'), *NOT_JSON, "UTF-8"),
    ("compressed, unsaid", lambda good: gzip.compress(good + b"}"), *NOT_JSON, "compressed"),
    ("a raw NUL", lambda good: good.replace(b"hi", b"h\0i") + b"}", *NOT_JSON, "JSON"),
    ("half a character", more(rb'"zz":"\ud800"'), *NOT_JSON, "JSON"),
    ("not a number", more(b'"zz":NaN'), *NOT_JSON, "JSON"),
    ("100,000 arrays, unread", more(b'"zz":' + b"[" * 100_000 + b"]" * 100_000), *NOT_JSON, "nested"),
    ("100,000 objects, unread", more(b'"zz":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000), *NOT_JSON, "nested"),
    ("a model of a wrong type", more(b'"model":5'), 400, "invalid_request", "model", "`str`"),
    ("a model that is null", more(b'"model":null'), 400, "invalid_request", "model", "`str`"),
    ("an unknown model", more(b'"model":"on"'), 404, "model_not_found", "model", "'one'"),
    ("a model of 1 MB", more(b'"model":"' + b"x" * 1_000_000 + b'"'), 404, "model_not_found", "model", "x"),
    ("an unknown model in the end", more(rb'"model":"auto","mod\u0065l":"on"'), 404, "model_not_found", "model", "'one'"),
]  # fmt: skip
FIELDS = b",".join(b'"f%d":1' % i for i in range(1000))
TYPES: dict[str, list[tuple[bytes, str]]] = {
    "/v1/chat/completions": [
        (b'{"model":"auto"}', "messages"),
        (b'{"messages":[]}', "messages"),
        (b'{"messages":"hi"}', "messages"),
        (b'{"messages":[5]}', "messages[0]"),
        (b'{"messages":[{"content":"hi"}]}', "messages[0]"),
        (b'{"messages":[{"role":"user","content":5}]}', "messages[0].content"),
        (b'{"messages":[{"role":"user","content":null}]}', "messages"),
        (b'{"messages":[{"role":"user","content":[{"text":5}]}]}', "messages[0].content[0].text"),
        *((b'{"messages":[{"role":"user","content":"hi"}],"%b":%b}' % (name.encode(), value), name) for name, value in {
            "stream": b'"yes"', "stream_options": b"[]", "tools": b"{}", "functions": b'"f"', "response_format": b'"json"',
            "logprobs": b"2", "n": b"9" * 400, "max_tokens": b"9" * 5000, "max_completion_tokens": b"9" * 20,
        }.items()),
    ],
    "/v1/completions": [
        (b"{}", "prompt"),
        (b'{"prompt":null}', "prompt"),
        (b'{"prompt":{}}', "prompt"),
        (b'{"prompt":["a",null]}', "prompt[1]"),
        (b'{"prompt":"hi","suffix":5}', "suffix"),
        (b'{"prompt":"hi","stream":1}', "stream"),
        (b'{"prompt":"hi","max_tokens":%b}' % (b"9" * 5000), "max_tokens"),
    ],
    "/v1/embeddings": [(b"{}", "input"), (b'{"input":null}', "input")],
    "/v1/responses": [
        (b"{}", "input"),
        (b'{"input":5}', "input"),
        (b'{"input":[5]}', "input[0]"),
        (b'{"input":[{"role":"user","content":null}]}', "input"),
        (b'{"input":"hi","instructions":5}', "instructions"),
        (b'{"input":"hi","text":5}', "text"),
        (b'{"input":"hi","top_logprobs":"x"}', "top_logprobs"),
        (b'{"input":"hi","max_output_tokens":%b}' % (b"9" * 5000), "max_output_tokens"),
    ],
    "/v1/messages": [
        (b'{"max_tokens":5}', "messages"),
        (b'{"max_tokens":5,"messages":[]}', "messages"),
        (b'{"messages":[{"role":"user","content":"hi"}]}', "max_tokens"),
        (b'{"max_tokens":0,"messages":[{"role":"user","content":"hi"}]}', "max_tokens"),
        (b'{"max_tokens":"5","messages":[{"role":"user","content":"hi"}]}', "max_tokens"),
        (b'{"max_tokens":1e400,"messages":[{"role":"user","content":"hi"}]}', "max_tokens"),
        (b'{"max_tokens":5,"messages":[{"role":"user","content":"hi"}],"system":5}', "system"),
        (b'{"max_tokens":5,"messages":[{"role":"user","content":"hi"}],"output_config":[]}', "output_config"),
    ],
    "/v1/messages/count_tokens": [(b"{}", "messages"), (b'{"messages":"hi"}', "messages")],
    "/v1/route": [
        (b"{}", "messages"),
        (b'{"input":5}', "input"),
        (b'{"input":" "}', "input"),
        (b'{"input":"hi","explain":"yes"}', "explain"),
    ],
}  # fmt: skip
CASES = [(path, *case) for path in GOOD for case in EVERYWHERE]
CASES += [
    (path, body.decode()[:60], instead(body), 400, "invalid_request", param, param.partition("[")[0])
    for path, bodies in TYPES.items()
    for body, param in bodies
]
CASES += [(path, "1,001 fields", more(FIELDS), 400, "invalid_request", None, "1000") for path in KINDS]


@pytest.fixture(scope="module")
def expert() -> Iterator[RawServer]:
    with raw_server(takes_anything) as server:
        yield server


@pytest.fixture(scope="module")
def gateway(expert: RawServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """A process whose log must hold no fault when it has ended."""
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "experts.yaml").write_text(EXPERTS.format(url=expert.url))
    with serve("--config", str(folder / "experts.yaml"), "--state", str(folder)) as command:
        yield command
    log = "".join(command.screen)
    assert "Traceback" not in log
    assert "the gateway failed" not in log


@pytest.fixture(scope="module")
def line(gateway: Command) -> Iterator[http.client.HTTPConnection]:
    """One connection, which is never opened a second time: what is refused must leave it fit for the next."""
    host, port = gateway.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
    connection.connect()
    connection.auto_open = 0
    yield connection
    connection.close()


def posted(line: http.client.HTTPConnection, path: str, body: bytes, **headers: str) -> tuple[int, dict[str, str], Any]:
    line.request("POST", path, body, headers)
    answer = line.getresponse()
    content = answer.read()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, json.loads(content)


def error_in(path: str, answer: Any) -> dict[str, Any]:
    """The error, which must be in the shape of the path's clients and in no other."""
    error: dict[str, Any] = answer["error"]
    if path.startswith("/v1/messages"):
        assert (set(answer), set(error), answer["type"]) == ({"type", "error"}, {"type", "message"}, "error")
    else:
        assert (set(answer), set(error)) == ({"error"}, {"message", "type", "param", "code"})
    return error


@pytest.mark.parametrize(
    ("path", "name", "bad", "status", "code", "param", "mentions"), CASES, ids=[f"{c[0]}: {c[1]}" for c in CASES]
)
def test_what_is_wrong_with_a_body_is_told_in_the_clients_shape_and_no_expert_is_asked(
    line: http.client.HTTPConnection,
    expert: RawServer,
    path: str,
    name: str,
    bad: Callable[[bytes], bytes],
    status: int,
    code: str,
    param: str | None,
    mentions: str,
) -> None:
    expert.calls.clear()
    got, headers, answer = posted(line, path, bad(GOOD[path]))
    error = error_in(path, answer)
    assert got == status
    assert mentions in error["message"]
    assert len(error["message"]) < 500
    assert headers["x-request-id"]
    if path.startswith("/v1/messages"):
        assert error["type"] == ("not_found_error" if status == 404 else "invalid_request_error")
    else:
        assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, param)
    assert expert.calls == []
    assert "connection" not in headers
    assert posted(line, path, GOOD[path] + b"}")[0] == 200


# What looks wrong and is not: it reaches the expert as it was sent.
FINE: list[tuple[str, bytes, dict[str, str]]] = [
    ("said to be a form, as curl does", b"", {"content-type": "application/x-www-form-urlencoded"}),
    ("said to be XML in UTF-16", b"", {"content-type": "text/xml; charset=utf-16"}),
    ("said to be of several parts", b"", {"content-type": "multipart/form-data; boundary=x"}),
    ("said not to be compressed", b"", {"content-encoding": "identity"}),
    ("an answer in XML wanted", b"", {"accept": "text/xml"}),
    ("a NUL", rb',"zz":"a\u0000b"', {}),
    ("a number beyond floats", b',"zz":1e400', {}),
    ("900 arrays", b',"zz":' + b"[" * 900 + b"]" * 900, {}),
    ("900 fields", b"," + b",".join(b'"f%d":1' % i for i in range(900)), {}),
    ("a name of 1 MB", b',"' + b"k" * 1_000_000 + b'":1', {}),
    ("a text of 30 MB", b',"zz":"' + b"k" * 30_000_000 + b'"', {}),
    ("no name", b',"":1', {}),
    ("a limit that means none", b',"n":1,"max_output_tokens":2147483647', {}),
    ("the last of two models is known", b',"model":"nobody","model":"one"', {}),
    ("streamed or not, the last counts", b',"stream":true,"stream":false', {}),
]  # fmt: skip


@pytest.mark.parametrize("path", KINDS)
@pytest.mark.parametrize(("name", "extra", "headers"), FINE, ids=[case[0] for case in FINE])
def test_what_only_looks_wrong_reaches_the_expert_as_it_was_sent(
    line: http.client.HTTPConnection, expert: RawServer, path: str, name: str, extra: bytes, headers: dict[str, str]
) -> None:
    if len(extra) > 5_000_000 and path not in ("/v1/chat/completions", "/v1/embeddings"):
        return  # two are enough of these
    expert.calls.clear()
    body = GOOD[path] + extra + b"}"
    assert posted(line, path, body, **headers)[0] == 200
    [call] = expert.calls
    assert call.path == path
    assert call.body == json.loads(body) | {"model": "model-one"}
    assert call.headers["content-type"] == "application/json"
    assert "content-encoding" not in call.headers


@pytest.mark.parametrize("path", GOOD)
def test_a_compressed_body_is_415_whether_it_is_or_not(
    line: http.client.HTTPConnection, expert: RawServer, path: str
) -> None:
    expert.calls.clear()
    good = GOOD[path] + b"}"
    for body in (gzip.compress(good), good):
        status, headers, answer = posted(line, path, body, **{"content-encoding": "gzip"})
        error = error_in(path, answer)
        assert (status, headers["accept-encoding"]) == (415, "identity")
        assert "content-encoding" in error["message"]
        assert path.startswith("/v1/messages") or error["param"] == "content-encoding"
    assert expert.calls == []
    assert posted(line, path, good)[0] == 200


def head(method: str, path: str, *headers: bytes) -> bytes:
    return b"\r\n".join([f"{method} {path} HTTP/1.1".encode(), b"host: x", *headers, b"", b""])


Answers = list[tuple[int, dict[bytes, bytes], bytes]]


def spoken(url: str, said: bytes, then: bytes = b"", half: bool = False, closed: bool = False) -> tuple[Answers, bool]:
    """Every answer on one connection, and whether the gateway closed it; `then` is said after the first answer.

    Where it is to be closed that is waited for; else a moment without a word shows that it stands.
    """
    host, port = url.removeprefix("http://").split(":")
    answers: Answers = []
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        connection.sendall(said)
        if half:
            connection.shutdown(socket.SHUT_WR)
        file = connection.makefile("rb")
        try:
            while first := file.readline():
                lines = dict(line.strip().lower().split(b": ", 1) for line in iter(file.readline, b"\r\n"))
                content = b"" if said.startswith(b"HEAD") else file.read(int(lines.get(b"content-length", 0)))
                answers.append((int(first.split()[1]), lines, content))
                connection.settimeout(PATIENCE if closed else 0.25)
                if then:
                    connection.sendall(then)
                    then = b""
        except TimeoutError:
            return answers, False
    return answers, True


CHAT = "/v1/chat/completions"
BODY = GOOD[CHAT] + b"}"
SIZE = b"content-length: %d" % len(BODY)
CHUNKED = b"transfer-encoding: chunked"
# What is said; the status, whether the connection is closed, whether an expert was asked.
SPOKEN: list[tuple[str, bytes, int, bool, bool]] = [
    ("chunks", head("POST", CHAT, CHUNKED) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY), 200, False, True),
    ("chunks of no size", head("POST", CHAT, CHUNKED) + b"zz\r\n", 400, True, False),
    ("a length and chunks", head("POST", CHAT, SIZE, CHUNKED) + b"0\r\n\r\n", 400, True, False),
    ("two lengths", head("POST", CHAT, SIZE, b"content-length: 3") + BODY, 400, True, False),
    ("a negative length", head("POST", CHAT, b"content-length: -5"), 400, True, False),
    ("a length that is no number", head("POST", CHAT, b"content-length: abc"), 400, True, False),
    ("a signed length", head("POST", CHAT, b"content-length: +5") + b"abcde", 400, True, False),
    ("a length that is too short", head("POST", CHAT, b"content-length: 5") + BODY, 400, True, False),
    ("a body that is too large, unsent", head("POST", CHAT, b"content-length: 99999999"), 413, False, False),
    ("a body beyond counting", head("POST", CHAT, b"content-length: 9999999999999999999"), 413, False, False),
    ("a compressed body, unsent", head("POST", CHAT, SIZE, b"content-encoding: br"), 415, False, False),
    ("GET with a body", head("GET", CHAT, SIZE) + BODY, 405, False, False),
    ("GET of models with a body", head("GET", "/v1/models", SIZE) + BODY, 200, False, False),
    ("HEAD", head("HEAD", CHAT), 405, False, False),
    ("OPTIONS", head("OPTIONS", CHAT), 405, False, False),
    ("OPTIONS, as a page of another site asks", head("OPTIONS", CHAT, b"origin: https://a.example"), 403, False, False),
    ("OPTIONS *", head("OPTIONS", "*"), 404, False, False),
    ("TRACE", head("TRACE", CHAT), 405, False, False),
    ("a method in small letters", head("post", CHAT, SIZE) + BODY, 400, True, False),
    ("a query", head("POST", CHAT + "?api-version=1&model=x", SIZE) + BODY, 200, False, True),
    ("an escaped letter", head("POST", "/v1/%63hat/completions", SIZE) + BODY, 200, False, True),
    ("two slashes", head("POST", "/" + CHAT, SIZE) + BODY, 404, False, False),
    ("a slash in the end", head("POST", CHAT + "/", SIZE) + BODY, 404, False, False),
    ("a slash in models' end", head("GET", "/v1/models/"), 404, False, False),
    ("dots", head("POST", "/v1/x/../chat/completions", SIZE) + BODY, 404, False, False),
    ("escaped dots", head("POST", "/v1/x/%2e%2e/chat/completions", SIZE) + BODY, 404, False, False),
    ("capitals", head("POST", "/V1/Chat/Completions", SIZE) + BODY, 404, False, False),
    ("a model of bytes", head("GET", "/v1/models/%00%ff%0d%0aset-cookie:x"), 404, False, False),
    ("a raw path", b"GET /v1/models/\xff HTTP/1.1\r\nhost: x\r\n\r\n", 400, True, False),
    ("a header that goes on", head("POST", CHAT, SIZE, b"x-request-id: a\r\n b") + BODY, 400, True, False),
    ("a header with a NUL", head("POST", CHAT, SIZE, b"x-request-id: a\0b") + BODY, 400, True, False),
    ("a policy of bytes", head("POST", CHAT, SIZE, b"x-moe-policy: \xe9\xff") + BODY, 400, False, False),
    ("a session of bytes", head("POST", CHAT, SIZE, b"x-moe-session: \xe9\xff" + b"x" * 9000) + BODY, 200, False, True),
    ("60 KB of state", head("POST", CHAT, SIZE, b"tracestate: " + b"a" * 60_000) + BODY, 200, False, True),
    ("70 KB of state", head("POST", CHAT, SIZE, b"tracestate: " + b"a" * 70_000) + BODY, 431, True, False),
    ("an expectation", head("POST", CHAT, SIZE, b"expect: 200-maybe") + BODY, 200, False, True),
]  # fmt: skip


@pytest.mark.parametrize(("name", "said", "status", "closed", "asked"), SPOKEN, ids=[case[0] for case in SPOKEN])
def test_a_connection_goes_on_where_what_was_said_was_understood_and_ends_where_not(
    gateway: Command, expert: RawServer, name: str, said: bytes, status: int, closed: bool, asked: bool
) -> None:
    expert.calls.clear()
    [(got, headers, content), *_], ended = spoken(gateway.url, said, closed=closed)
    assert (got, ended, len(expert.calls)) == (status, closed, asked)
    assert not {b"set-cookie", b"location", b"access-control-allow-origin"} & set(headers)
    assert headers[b"content-type"] == b"application/json"
    if status >= 400 and not said.startswith(b"HEAD"):
        assert set(json.loads(content)["error"]) == {"message", "type", "param", "code"}
    if status == 405:
        assert headers[b"allow"] == b"post"
    for call in expert.calls:
        assert len(call.headers.get("tracestate", "")) <= 2048


@pytest.mark.parametrize("path", GOOD)
def test_a_body_that_breaks_off_asks_nobody_and_is_not_answered(gateway: Command, expert: RawServer, path: str) -> None:
    expert.calls.clear()
    good = GOOD[path] + b"}"
    for said in (
        head("POST", path, b"content-length: 1000") + good,
        head("POST", path, CHUNKED) + b"%x\r\n%b" % (len(good), good[:9]),
        head("POST", path, CHUNKED) + b"%x\r\n%b\r\n" % (len(good), good),
    ):
        assert spoken(gateway.url, said, half=True) == ([], True)
    assert expert.calls == []


def test_what_comes_behind_a_body_that_was_refused_unread_is_no_request(gateway: Command, expert: RawServer) -> None:
    expert.calls.clear()
    smuggled = head("POST", CHAT, SIZE) + BODY
    answers, _ = spoken(gateway.url, head("POST", CHAT, b"content-length: 99999999"), then=smuggled)
    assert [status for status, _, _ in answers] == [413]
    assert expert.calls == []


@pytest.mark.parametrize("name", ["traceparent", "tracestate", "anthropic-version", "anthropic-beta", "x-request-id"])
@pytest.mark.parametrize("value", [b"a\xe9\xff", b"a: b", b"a\tb", b"a, b; c=\x80", b"\xc2\x85x-evil: 1"])
def test_no_header_of_a_client_s_becomes_two_on_the_way_up(
    gateway: Command, expert: RawServer, name: str, value: bytes
) -> None:
    expert.calls.clear()
    [(status, headers, _)], _ = spoken(gateway.url, head("POST", CHAT, SIZE, name.encode() + b": " + value) + BODY)
    assert status == 200
    [call] = expert.calls
    known = {"host", "content-type", "content-length", "user-agent", "accept", "accept-encoding", "x-request-id"}
    assert set(call.headers) == known | {name}
    assert all(sent.isascii() and sent.isprintable() for sent in call.headers.values())
    assert headers[b"x-request-id"] == call.headers["x-request-id"].encode()


def repeated(unit: bytes, size: int = 32 * 1024 * 1024 - 500) -> bytes:
    return b"[" + b",".join([unit] * (size // (len(unit) + 1))) + b"]"


HEAVY: list[tuple[str, Callable[[], bytes]]] = [
    (CHAT, lambda: b'{"messages":[{"role":"user","content":' + repeated(b"{}") + b"}]}"),
    (CHAT, lambda: GOOD[CHAT] + b',"tools":' + repeated(b"1") + b"}"),
    ("/v1/completions", lambda: b'{"prompt":' + repeated(b"[]") + b"}"),
    ("/v1/responses", lambda: b'{"input":' + repeated(b"{}") + b"}"),
]


@pytest.mark.parametrize(("path", "made"), HEAVY, ids=["parts", "tools", "prompts", "items"])
def test_a_body_of_millions_of_values_is_refused_and_keeps_nobody_waiting(
    gateway: Command, line: http.client.HTTPConnection, expert: RawServer, path: str, made: Callable[[], bytes]
) -> None:
    body, done, longest = made(), threading.Event(), [0.0]

    def ask_others() -> None:
        with httpx.Client(base_url=gateway.url, timeout=60) as client:
            while not done.is_set():
                began = time.perf_counter()
                client.get("/health")
                longest[0] = max(longest[0], time.perf_counter() - began)
                time.sleep(0.005)

    expert.calls.clear()
    asking = threading.Thread(target=ask_others)
    asking.start()
    try:
        began = time.perf_counter()
        status, _, answer = posted(line, path, body)
        took = time.perf_counter() - began
    finally:
        done.set()
        asking.join(60)
    assert (status, answer["error"]["code"]) == (400, "invalid_request")
    assert "values" in answer["error"]["message"]
    assert expert.calls == []
    assert longest[0] < 2.5
    assert took < 10


LACKING: list[tuple[str, bytes, str, str]] = [
    ("an image only", saying([IMAGE]), "unsupported_capability", "vision"),
    ("5 MB of text", saying("word " * 1_000_000), "context_length_exceeded", "8192"),
]


@pytest.mark.parametrize(
    ("body", "code", "mentions"), [case[1:] for case in LACKING], ids=[case[0] for case in LACKING]
)
def test_what_no_expert_can_do_is_told_and_the_next_request_is_served(
    start: Start, servers: list[FakeServer], body: bytes, code: str, mentions: str
) -> None:
    gateway = start(experts_yaml(servers[0], expert_extra="    context_window: 8192"))
    response = httpx.post(f"{gateway.url}{CHAT}", content=body, timeout=PATIENCE)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == code
    assert mentions in response.json()["error"]["message"]
    assert servers[0].requests == []
    assert (
        httpx.post(f"{gateway.url}{CHAT}", json={"model": "auto", "messages": HELLO}, timeout=PATIENCE).status_code
        == 200
    )


def test_text_in_parts_is_routed_and_passed_on_as_it_came(start: Start, servers: list[FakeServer]) -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "Prove that √2 is irrational", "cache": {"x": 1}}]}
    ]
    gateway = start(experts_yaml(servers[0]))
    response = httpx.post(
        f"{gateway.url}/v1/chat/completions", json={"model": "auto", "messages": messages}, timeout=PATIENCE
    )
    assert response.headers["x-moe-domain"] == "math"
    assert servers[0].requests[0]["messages"] == messages


def test_a_body_over_the_limit_is_413(start: Start, servers: list[FakeServer]) -> None:
    gateway = start(experts_yaml(servers[0]), max_body_bytes=1000)
    big = {"model": "auto", "messages": [{"role": "user", "content": "x" * 2000}]}
    response = httpx.post(f"{gateway.url}/v1/chat/completions", json=big, timeout=PATIENCE)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "request_too_large"
    chunked = httpx.post(f"{gateway.url}/v1/chat/completions", content=iter([b"x" * 600, b"x" * 600]), timeout=PATIENCE)
    assert chunked.status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [("GET", "/v1/chat/completions", 405), ("GET", "/nowhere", 404), ("PUT", "/metrics", 405)],
)
def test_a_wrong_path_or_method_is_told_in_the_same_shape(
    start: Start, servers: list[FakeServer], method: str, path: str, code: int
) -> None:
    response = httpx.request(method, f"{start(experts_yaml(servers[0])).url}{path}", timeout=PATIENCE)
    assert response.status_code == code
    assert path in response.json()["error"]["message"]


def test_garbage_that_is_not_http_does_not_stop_the_others(start: Start, servers: list[FakeServer]) -> None:
    gateway = start(experts_yaml(servers[0]))
    host, port = gateway.url.removeprefix("http://").split(":")
    for garbage in (
        b"\x00\xff\x13\x37\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: -5\r\n\r\n",
    ):
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as client:
            client.sendall(garbage)
            client.recv(1000)
    assert httpx.get(f"{gateway.url}/health", timeout=PATIENCE).status_code == 200


def test_clients_cannot_make_label_values(start: Start, servers: list[FakeServer]) -> None:
    gateway = start(experts_yaml(servers[0]))
    series = len(httpx.get(f"{gateway.url}/metrics", timeout=PATIENCE).text.splitlines())
    counts = []
    for i in range(30):
        body: dict[str, Any] = {"model": f"made-up-{i}", "messages": HELLO}
        headers = {"x-request-id": f"id-{i}", "x-moe-session": f"s{i}", "user-agent": f"agent-{i}"}
        assert (
            httpx.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=PATIENCE).status_code
            == 404
        )
        counts.append(len(httpx.get(f"{gateway.url}/metrics", timeout=PATIENCE).text.splitlines()))
    assert "made-up" not in httpx.get(f"{gateway.url}/metrics", timeout=PATIENCE).text
    assert counts[-1] == counts[1]
    assert counts[-1] - series < 120


def test_a_stopped_expert_is_a_503_with_retry_after_and_ready_says_so(start: Start, servers: list[FakeServer]) -> None:
    servers[0].healthy = False
    gateway = start(experts_yaml(servers[0]))
    ready = httpx.get(f"{gateway.url}/ready", timeout=PATIENCE)
    assert ready.status_code == 503
    assert ready.json()["experts"] == {"one": "down"}
    response = httpx.post(
        f"{gateway.url}/v1/chat/completions", json={"model": "auto", "messages": HELLO}, timeout=PATIENCE
    )
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    assert httpx.get(f"{gateway.url}/health", timeout=PATIENCE).status_code == 200
