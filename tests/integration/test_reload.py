"""Another experts.yaml takes the place of the one that runs: whole, at once, and for what is new alone."""

from __future__ import annotations

import concurrent.futures
import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.fakes.upstream import PATIENCE, WORDS, FakeServer, chunk, fake_server, status, streams
from tests.integration.conftest import Command, Running, Start, experts_yaml, serve

TRYING = 200.0  # seconds for a process that trains or tries a router: it steps back for all others, whatever they are


def ask(url: str, **body: Any) -> httpx.Response:
    request = {"model": "one", "messages": [{"role": "user", "content": "hello"}], **body}
    return httpx.post(f"{url}/v1/chat/completions", json=request, timeout=PATIENCE)


def reloaded(url: str, query: str = "", patience: float = PATIENCE) -> httpx.Response:
    return httpx.post(f"{url}/admin/reload{query}", timeout=patience)


def test_what_is_in_flight_ends_on_what_it_began_with(start: Start, servers: list[FakeServer], tmp_path: Path) -> None:
    servers[0].behaviour = streams(chunk({"content": "be"}), chunk({"content": "gun"}), chunk({}, "stop"), pause=0.4)
    config = tmp_path / "experts.yaml"
    config.write_text(experts_yaml(servers[0]), "utf-8")
    gateway = start(config.read_text("utf-8"), config=config)
    with concurrent.futures.ThreadPoolExecutor() as threads:
        running = threads.submit(ask, gateway.url, stream=True)
        assert servers[0].wait_until_asked()
        config.write_text(experts_yaml(servers[1]), "utf-8")  # the same names, another server
        response = reloaded(gateway.url)
        assert response.status_code == 200, response.text
        assert ask(gateway.url).json()["choices"][0]["message"]["content"] == "".join(WORDS)
        assert len(servers[1].requests) == 1
        assert '"be"' in running.result().text
        assert '"gun"' in running.result().text
    assert len(servers[0].requests) == 1
    assert gateway.metric("moe_config_reloads_total", outcome="ok") == 1
    assert gateway.settled("moe_requests_in_flight", 0)


def test_a_bad_file_changes_nothing_and_says_what_is_wrong(
    start: Start, servers: list[FakeServer], tmp_path: Path
) -> None:
    config = tmp_path / "experts.yaml"
    good = experts_yaml(servers[0])
    gateway = start(good, config=config)
    for bad, says in ((good.replace("domains:", "domians:"), "domians"), ("", "version"), ("\xff\x00", "UTF-8")):
        config.write_bytes(bad.encode("latin-1"))
        response = reloaded(gateway.url)
        assert response.status_code == 400
        assert response.json()["error"]["code"] == "invalid_config"
        assert says in response.json()["error"]["message"]
        assert ask(gateway.url).headers["x-moe-expert"] == "one"
    assert gateway.metric("moe_config_reloads_total", outcome="failed") == 3
    assert gateway.metric("moe_config_reloads_total", outcome="ok") == 0
    assert gateway.metric("moe_config_last_reload_successful") == 0
    config.write_text(good, "utf-8")
    assert reloaded(gateway.url).status_code == 200
    assert gateway.metric("moe_config_last_reload_successful") == 1


def test_experts_come_and_go(start: Start, servers: list[FakeServer], tmp_path: Path) -> None:
    config = tmp_path / "experts.yaml"
    gateway = start(experts_yaml(*servers[:2]), config=config)
    config.write_text(experts_yaml(servers[0]), "utf-8")
    assert reloaded(gateway.url).json()["experts"] == ["one"]
    assert "two" not in [
        model["id"] for model in httpx.get(f"{gateway.url}/v1/models", timeout=PATIENCE).json()["data"]
    ]
    assert ask(gateway.url, model="two").status_code == 404
    assert gateway.metric("moe_replica_up", expert="two") == 0
    config.write_text(experts_yaml(*servers), "utf-8")
    assert reloaded(gateway.url).status_code == 200
    assert ask(gateway.url, model="three").headers["x-moe-expert"] == "three"


def test_what_is_known_of_a_replica_that_stays_is_not_forgotten(
    start: Start, servers: list[FakeServer], tmp_path: Path
) -> None:
    config = tmp_path / "experts.yaml"
    text = experts_yaml(*servers[:2])
    gateway = start(text, config=config)
    servers[0].behaviour = status(500)
    for _ in range(3):
        ask(gateway.url, model="one")
    assert len(servers[0].requests) == 3
    config.write_text(text + "\n# saved again\n", "utf-8")
    assert reloaded(gateway.url).status_code == 200
    (replica,) = httpx.get(f"{gateway.url}/admin/experts", timeout=PATIENCE).json()["one"]["replicas"]
    assert replica["failures"] >= 3
    assert replica["state"] in ("ejected", "half_open")  # its cool-down may be over by now


def config_of(url: str) -> dict[str, Any]:
    """What GET /admin/config tells."""
    told: dict[str, Any] = httpx.get(f"{url}/admin/config", timeout=PATIENCE).json()
    return told


def comes_to(condition: Callable[[], bool], patience: float = PATIENCE) -> bool:
    until = time.monotonic() + patience
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def test_a_refused_file_is_told_wherever_an_operator_looks(
    start: Start, servers: list[FakeServer], tmp_path: Path
) -> None:
    config = tmp_path / "experts.yaml"
    good = experts_yaml(servers[0])
    gateway = start(good, config=config)
    running = config_of(gateway.url)
    assert (running["status"], running["wanted"], running["problems"]) == ("serving", None, [])
    config.write_text(good.replace("model-one", "model-one\n    secert: hush-hush"), "utf-8")
    assert reloaded(gateway.url).status_code == 400
    told = config_of(gateway.url)
    assert (told["status"], told["code"], told["config"]) == ("refused", "invalid_config", running["config"])
    assert told["problems"][0].startswith("experts.yaml:6:5: experts.one.secert: unknown key")
    assert told["tried"] >= told["since"] == running["since"]
    ready = httpx.get(f"{gateway.url}/ready", timeout=PATIENCE)
    assert ready.status_code == 200  # what ran before goes on
    assert ready.json()["config"] == {"status": "refused", "running": running["config"], "wanted": told["wanted"]}
    assert told["wanted"] not in (None, running["config"])
    assert "hush-hush" not in ready.text + str(told) + reloaded(gateway.url).text
    config.write_text(good.replace("model-one", "model-1"), "utf-8")
    answer = reloaded(gateway.url).json()
    assert answer["changes"] == ["expert one changed: model"]
    assert config_of(gateway.url)["changes"] == answer["changes"]
    config.write_text(good, "utf-8")
    assert reloaded(gateway.url).json()["status"] == "reloaded"
    assert reloaded(gateway.url).json()["status"] == "unchanged"
    assert gateway.metric("moe_config_reloads_total", outcome="ok") == 2


@pytest.mark.timeout(2 * TRYING + 100)
def test_a_routing_test_that_a_change_breaks_keeps_it_out_unless_it_is_forced(
    start: Start, servers: list[FakeServer], tmp_path: Path
) -> None:
    config, tests = tmp_path / "experts.yaml", tmp_path / "routes.test.yaml"
    gateway = start(experts_yaml(*servers[:2]), config=config)
    tests.write_text("version: 1\ntests:\n  - {name: code goes to two, prompt: Fix my Python loop, expert: two}\n")
    config.write_text(experts_yaml(*servers), "utf-8")
    refused = reloaded(gateway.url, patience=TRYING)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "tests_failed")
    assert refused.json()["error"]["message"].startswith("routes.test.yaml:3: 'code goes to two' went to one")
    assert ask(gateway.url, model="three").status_code == 404
    forced = reloaded(gateway.url, "?force=true", patience=TRYING)
    assert forced.json()["status"] == "reloaded"
    assert "code goes to two" in forced.json()["warnings"][0]
    assert ask(gateway.url, model="three").status_code == 200
    assert config_of(gateway.url)["warnings"] == forced.json()["warnings"]


def test_reloads_under_load_lose_no_request_and_leave_nothing_open(
    start: Start, servers: list[FakeServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.generation.SETTLE_SECONDS", 0.05)
    monkeypatch.setattr("gateway.generation.LOOK_SECONDS", 0.02)
    config = tmp_path / "experts.yaml"
    texts = [experts_yaml(*servers[:count], expert_extra=f"    max_in_flight: {50 + count}") for count in (1, 2, 3)]
    gateway = start(texts[0], config=config)
    process, over = psutil.Process(), threading.Event()

    def load() -> set[int]:
        found = set()
        with httpx.Client(timeout=PATIENCE) as client:
            while not over.is_set():
                body = {"model": "auto", "messages": [{"role": "user", "content": "hello"}], "stream": True}
                answer = client.post(f"{gateway.url}/v1/chat/completions", json=body)
                assert "[DONE]" in answer.text
                found.add(answer.status_code)
        return found

    def reload(times: int) -> None:
        for i in range(times):
            config.write_text(texts[(i + 1) % 3], "utf-8")
            assert reloaded(gateway.url).json()["status"] == "reloaded"

    with concurrent.futures.ThreadPoolExecutor() as threads:
        running = [threads.submit(load) for _ in range(2)]
        try:
            reload(9)
            settled = _at_rest(gateway, process)
            reload(21)
            after = _at_rest(gateway, process)
        finally:
            over.set()
        assert [task.result() for task in running] == [{200}] * 2
    assert after <= settled + 2  # connections come and go with the load
    assert gateway.metric("moe_config_reloads_total", outcome="ok") == 30
    assert gateway.metric("moe_requests_total", code="200") == gateway.metric("moe_requests_total")


def _at_rest(gateway: Running, process: psutil.Process) -> int:
    """How many files and threads are open, when all generations before the last have ended."""
    swapper = gateway.server.config.app.state.swapper  # type: ignore[union-attr]
    assert comes_to(lambda: not swapper.retiring)
    return int(process.num_fds() + process.num_threads())


@pytest.fixture(scope="module")
def watching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Command, Path, list[FakeServer]]]:
    """The command, which watches its file, as a mount of Kubernetes: the link in the folder is swapped."""
    folder = tmp_path_factory.mktemp("watching")
    with ExitStack() as stack:
        servers = [stack.enter_context(fake_server()) for _ in range(2)]
        publish(folder, "..v1", experts_yaml(servers[0]))
        (folder / "experts.yaml").symlink_to("..data/experts.yaml")
        arguments = ("--config", str(folder / "experts.yaml"), "--state", str(folder / "state"))
        yield stack.enter_context(serve(*arguments)), folder, servers


def publish(folder: Path, version: str, text: str) -> None:
    (folder / version).mkdir()
    (folder / version / "experts.yaml").write_text(text, "utf-8")
    (folder / "..data_tmp").symlink_to(version)
    (folder / "..data_tmp").replace(folder / "..data")


def logged(command: Command, *words: str) -> list[dict[str, Any]]:
    """The lines of the log so far that hold all these words."""
    return [json.loads(line) for line in [*command.screen] if line.startswith("{") and all(w in line for w in words)]


def test_the_command_sees_what_kubernetes_publishes(watching: tuple[Command, Path, list[FakeServer]]) -> None:
    command, folder, servers = watching
    assert config_of(command.url)["watch"] == "auto"
    publish(folder, "..v2", experts_yaml(*servers))
    assert comes_to(lambda: ask(command.url, model="two").status_code == 200)
    publish(folder, "..v3", "experts: [")
    assert comes_to(lambda: bool(config_of(command.url)["status"] == "refused"))
    assert ask(command.url, model="two").status_code == 200
    publish(folder, "..v4", experts_yaml(servers[0]))
    assert comes_to(lambda: bool(config_of(command.url)["experts"] == ["one"]))
    levels = ["info", "error", "info"]
    assert comes_to(lambda: [event["level"] for event in logged(command, "reload")] == levels)  # by a thread of its own
    assert (folder / "state" / "history").is_dir()


LEGAL = [
    *("Is a verbal contract enforceable in Spain?", "Can my landlord keep the deposit for normal wear and tear?"),
    *(
        "What does the statute of limitations mean for unpaid invoices?",
        "Draft a non-disclosure clause for a contractor.",
    ),
    *("Does a will need witnesses to be valid?", "When does copyright in a photograph expire?"),
    *("May an employer dismiss somebody on sick leave?", "What is the difference between libel and slander?"),
    *("How is custody decided after a divorce?", "Can I appeal against a court order after thirty days?"),
]


def training(command: Command) -> list[psutil.Process]:
    """The processes that train for the command."""
    found = []
    for child in psutil.Process(command.process.pid).children():
        with suppress(psutil.NoSuchProcess):
            if "gateway.reloading.training" in child.cmdline():
                found.append(child)
    return found


@pytest.mark.timeout(TRYING + 100)
def test_ten_examples_of_a_new_domain_are_routed_to_after_training_aside(
    watching: tuple[Command, Path, list[FakeServer]],
) -> None:
    command, folder, servers = watching
    domain = "domains:\n  legal:\n    examples:\n" + "".join(f"      - {json.dumps(text)}\n" for text in LEGAL)
    wanted = experts_yaml(*servers, extra=domain).replace(
        "model-two\n    domains: {", "model-two\n    domains: {legal: 0.95, "
    )
    publish(folder, "..v5", wanted)
    assert comes_to(lambda: bool(config_of(command.url)["status"] == "preparing"))
    assert comes_to(lambda: len(training(command)) == 1)  # the file is read before it is begun
    (child,) = training(command)

    def domain_of(text: str) -> object:
        answer = httpx.post(f"{command.url}/v1/route", json={"input": text}, timeout=PATIENCE)
        return answer.json()["domain"], answer.json()["expert"]

    assert domain_of("Is a prenuptial agreement binding in court?")[0] != "legal"  # type: ignore[index]
    assert comes_to(lambda: bool(config_of(command.url)["status"] != "preparing"), patience=TRYING)
    assert config_of(command.url)["problems"] == []
    assert domain_of("Is a prenuptial agreement binding in court?") == ("legal", "two")
    assert not child.is_running()
    assert comes_to(lambda: bool(logged(command, '"event":"reloaded"', "legal")))
    (line,) = logged(command, '"event":"reloaded"', "legal")
    assert "domain legal added: +10 examples" in line["changes"]
    assert "prompts of the old domains" in line["figures"]


def test_sighup_reloads_the_command(servers: list[FakeServer], tmp_path: Path) -> None:
    config = tmp_path / "experts.yaml"
    config.write_text(experts_yaml(servers[0]), "utf-8")
    with serve("--config", str(config), "--state", str(tmp_path / "state")) as command:
        assert ask(command.url).headers["x-moe-expert"] == "one"
        config.write_text(experts_yaml(*servers[:2]), "utf-8")
        command.process.send_signal(signal.SIGHUP)
        until = time.monotonic() + PATIENCE
        while ask(command.url, model="two").status_code != 200:
            assert time.monotonic() < until
            time.sleep(0.1)


def test_a_request_whose_body_arrives_after_a_reload_is_served_by_the_new_file(
    start: Start, servers: list[FakeServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.generation.SETTLE_SECONDS", 0.1)
    config = tmp_path / "experts.yaml"
    config.write_text(experts_yaml(servers[0]), "utf-8")
    gateway = start(config.read_text("utf-8"), config=config)
    body = json.dumps({"model": "one", "messages": [{"role": "user", "content": "hi"}]}).encode()
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as client:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body[:10])
        config.write_text(experts_yaml(servers[1]), "utf-8")
        assert reloaded(gateway.url).status_code == 200
        time.sleep(0.5)  # what was before is closed by now
        client.sendall(body[10:])
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
    assert (len(servers[0].requests), len(servers[1].requests)) == (0, 1)
