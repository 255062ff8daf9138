"""What a hostile or unlucky world did to an earlier version; each would happen again without its fix."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from aiohttp import web

from gateway.workers.supervisor import Worker
from tests.fakes.upstream import PATIENCE, FakeServer, chunk, endless, status, streams, usage_chunk, well
from tests.integration.conftest import PATIENT, ROOT, STARTING, Start, experts_yaml
from tests.integration.test_command import EXPERTS, one_line, run
from tests.integration.test_disconnects import connect
from tests.integration.test_worker import until

HELLO = [{"role": "user", "content": "hello"}]


def ask(url: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{url}/v1/chat/completions", json={"model": "auto", "messages": HELLO, **body}, timeout=60)


async def much(server: FakeServer, request: web.Request, body: Any) -> web.StreamResponse:
    """A long answer, all at once."""
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    for _ in range(300):
        await response.write(chunk({"content": "x" * 50_000}))
    await response.write(chunk({}, "stop") + b"data: [DONE]\n\n")
    return response


def test_a_slow_client_is_not_held_against_the_expert(start: Start, servers: list[FakeServer]) -> None:
    servers[0].behaviour = much
    gateway = start(experts_yaml(servers[0], timeouts=PATIENT.replace("total: 100s", "total: 3s")))
    client = connect(gateway, stream=True)
    assert servers[0].wait_until_asked()
    time.sleep(3.5)  # longer than the expert's total
    received = b""
    while not received.endswith(b"0\r\n\r\n"):
        part = client.recv(1 << 20)
        assert part
        received += part
    client.close()
    assert b'"error"' not in received
    assert b"[DONE]" in received
    assert gateway.settled("moe_upstream_attempts_total", 1, outcome="ok")


def test_a_client_that_never_reads_gives_its_place_back(start: Start, servers: list[FakeServer]) -> None:
    servers[0].behaviour = much
    gateway = start(experts_yaml(servers[0]), client_seconds=0.5)
    with connect(gateway, stream=True):
        assert servers[0].wait_until_asked()
        assert gateway.settled("moe_client_disconnects_total", 1, phase="streaming")
        assert gateway.metric("moe_requests_in_flight") == 0
        assert servers[0].wait_until_idle()
        assert gateway.state.pool.replicas["one"][0].failures == 0


def test_a_stream_of_two_answers_that_breaks_off_in_the_second_is_truncated(
    start: Start, servers: list[FakeServer]
) -> None:
    def choice(index: int, text: str, finish: str | None = None) -> bytes:
        body = {"choices": [{"index": index, "delta": {"content": text}, "finish_reason": finish}]}
        return b"data: " + json.dumps(body).encode() + b"\n\n"

    servers[0].behaviour = streams(choice(0, "a"), choice(1, "b"), choice(0, "", "stop"), then="cut")
    gateway = start(experts_yaml(servers[0]))
    assert "upstream_truncated" in ask(gateway.url, stream=True, n=2).text
    assert gateway.settled("moe_upstream_attempts_total", 1, outcome="truncated")


def test_what_a_failed_expert_used_is_not_billed_to_the_next(start: Start, servers: list[FakeServer]) -> None:
    error = b'data: {"error": {"message": "x"}}\n\n'
    servers[0].behaviour = streams(usage_chunk(), error)
    servers[1].behaviour = status(500)
    gateway = start(experts_yaml(*servers[:2]))
    assert ask(gateway.url, stream=True).status_code == 502
    assert gateway.settled("moe_requests_total", 1, code="502")
    assert gateway.metric("moe_tokens_total") == 0
    assert gateway.metric("moe_cost_usd_total") == 0


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_that_comes_as_an_answer_moves_on(start: Start, servers: list[FakeServer], stream: bool) -> None:
    servers[0].behaviour = status(200, {"error": {"message": "out of memory", "type": "x"}})
    gateway = start(experts_yaml(*servers[:2]))
    assert ask(gateway.url, stream=stream).headers["x-moe-expert"] == "two"
    assert gateway.metric("moe_upstream_attempts_total", expert="one", outcome="server_error") == 1


def test_turns_go_by_weight(start: Start, servers: list[FakeServer]) -> None:
    both = f"[{servers[0].url}, {{url: {servers[1].url}, weight: 4}}]"
    text = experts_yaml(servers[0], expert_extra="    affinity: none")
    gateway = start(text.replace(f"[{servers[0].url}]", both))
    for _ in range(10):
        ask(gateway.url, model="one")
    assert [len(server.requests) for server in servers[:2]] == [2, 8]


@pytest.mark.parametrize("piece", [b'{"role":"user","content":"a"}', b'{"type":"text","text":"a"}'])
def test_a_request_of_absurdly_many_pieces_is_refused_before_it_is_decoded(
    start: Start, servers: list[FakeServer], piece: bytes
) -> None:
    gateway = start(experts_yaml(servers[0]))
    cut = b'{"messages":[' + b",".join([piece] * 300_000)  # not even JSON: a decoder would say so
    response = httpx.post(f"{gateway.url}/v1/chat/completions", content=cut, timeout=60)
    assert response.status_code == 400
    assert "300000" in response.json()["error"]["message"]
    assert ask(gateway.url).status_code == 200


def test_names_beyond_ascii_and_with_brackets_stand_in_no_ones_way(start: Start, servers: list[FakeServer]) -> None:
    gateway = start(experts_yaml(servers[0]).replace("model-one", '"модель [/b] x"'))
    for path, body in (("chat/completions", {"messages": HELLO}), ("route", {"input": "hello"})):
        response = httpx.post(f"{gateway.url}/v1/{path}", json=body, timeout=PATIENCE)
        assert response.status_code == 200
        assert response.headers["x-moe-model"] == "?????? [/b] x"
    assert gateway.metric("moe_requests_total", endpoint="route", code="200") == 1


def test_a_worker_that_hangs_is_replaced(start: Start) -> None:
    text = EXPERTS.replace("connect: 2s", "connect: 1s")
    gateway = start(text, health_interval=0.1)
    worker = gateway.state.workers["smollm2"]
    assert isinstance(worker, Worker)
    first = worker.pid
    assert first is not None
    psutil.Process(first).send_signal(signal.SIGSTOP)
    assert until(lambda: worker.pid not in (None, first) and worker.url is not None)
    assert until(lambda: httpx.get(f"{gateway.url}/ready", timeout=PATIENCE).status_code == 200)
    assert ask(gateway.url, max_tokens=4).status_code == 200


def test_a_start_that_fails_is_one_line_and_exit_status_1(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("not a folder", "utf-8")
    line = one_line(run("serve", "--port", "0", "--state", str(tmp_path / "state")))
    assert "cannot be launched" in line


def test_a_signal_ends_a_start_that_waits_for_its_worker(tmp_path: Path) -> None:
    (tmp_path / "xllamacpp.py").write_text("import time\nopen('loading', 'w').close()\ntime.sleep(600)\n", "utf-8")
    command = [sys.executable, "-m", "gateway.cli", "serve", "--port", "0", "--config", str(ROOT / "experts.yaml")]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    process = subprocess.Popen([*command, "--state", "state"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE)
    assert until(lambda: (tmp_path / "loading").exists())
    children = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=STARTING)
    assert process.returncode == 0
    assert errors == b""
    assert until(lambda: not any(child.is_running() for child in children))


def test_a_batch_is_never_read_from_where_it_is_written_to(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"id": 1, "prompt": "hello"}\n', "utf-8")
    assert "input and output" in one_line(run("route", "--input", str(path), "--output", str(path)))
    assert path.read_text("utf-8")


def test_a_line_that_is_not_utf_8_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"id": 1, "prompt": "hello"}\n{"id": 2, "prompt": "\xff"}\n{"id": 3, "prompt": "hi"}\n'
    )
    answers = [json.loads(line) for line in run("route", "--input", str(path)).stdout.splitlines()]
    assert ["error" in answer for answer in answers] == [False, True, False]


def test_unknown_costs_are_warned_of(tmp_path: Path) -> None:
    config = tmp_path / "experts.yaml"
    text = EXPERTS.replace("baseline: gpt-4o", "baseline: no-such-model")
    config.write_text(text.replace("    price: {input: 0.02, output: 0.10}\n", "", 1), "utf-8")
    result = run("check", str(config))
    assert result.returncode == 0
    assert "no price" in result.stdout
    assert "no-such-model" in result.stdout


def test_an_endless_stream_ends_at_its_total(start: Start, servers: list[FakeServer]) -> None:
    servers[0].behaviour = endless
    text = experts_yaml(*servers[:1] * 2).replace("total: 100s", "total: 500ms", 1)
    gateway = start(text.replace("fallbacks: [two]", "fallbacks: []"))
    assert "upstream_timeout" in ask(gateway.url, model="one", stream=True).text
    assert servers[0].wait_until_idle()
    servers[0].behaviour = well
    assert ask(gateway.url, model="two").status_code == 200
