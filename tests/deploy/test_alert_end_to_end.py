"""An expert goes down: a real Prometheus with our rules sees it, and a real Alertmanager tells it; and that it is back."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.deploy.files import DEPLOY, PROMETHEUS, TOOLS, documents, prometheus, tool
from tests.deploy.prometheus_rules import alerts
from tests.fakes.upstream import PATIENCE, FakeServer
from tests.integration.conftest import Start, artifact, experts_yaml, servers, start

__all__ = ["artifact", "servers", "start"]  # fixtures

LOOK = "1s"  # where the shipped files say 15 s
RUNBOOKS = "https://git.example.com/moe-gateway/docs/runbooks"
TEMPLATES = (
    TOOLS.parent / "share" / "prometheus" / "alertmanager"
)  # which the Alertmanager of tools.sh looks for where it is started
LISTENS = re.compile(r'msg="Listening on" address=(127\.0\.0\.1:\d+)')


@dataclass
class Listener:
    """Whoever is told: `url`/slack stands for Slack, `url`/webhook takes Alertmanager's own messages."""

    url: str
    told: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    news: threading.Condition = field(default_factory=threading.Condition)

    def hear(self, path: str, message: dict[str, Any]) -> None:
        with self.news:
            self.told.append((path, message))
            self.news.notify_all()

    def heard(self, path: str, status: str) -> dict[str, Any]:
        """The first message to `path` that something is `firing`, or `resolved`."""

        def found() -> dict[str, Any] | None:
            return next((m for to, m in self.told if to == path and status in json.dumps(m).lower()), None)

        with self.news:
            message = self.news.wait_for(found, 2 * PATIENCE)
            assert message is not None, self.told
            return message


@contextmanager
def listener() -> Iterator[Listener]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.hear(self.path, json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """On no screen."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Listener(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def running(folder: Path, command: list[str], cwd: Path, **environment: str) -> Iterator[str]:
    """A program of Prometheus' family: the address that it says it listens on. It ends with the block."""
    log = folder / f"{Path(command[0]).name}.log"
    with log.open("w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, cwd=cwd, env={**os.environ, **environment})
    try:
        until = time.monotonic() + PATIENCE
        while not (found := LISTENS.search(log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        yield found[1]
    finally:
        process.kill()  # what it keeps is nobody's any more
        process.wait()


def written(path: Path, document: Mapping[str, Any]) -> Path:
    with path.open("w") as file:
        YAML(typ="safe").dump(document, file)
    return path


@contextmanager
def alertmanager(folder: Path, told: str) -> Iterator[str]:
    """Ours, but for whom it tells and how long it waits for more to tell."""
    [settings] = documents((DEPLOY / "alertmanager" / "alertmanager.yml").read_text("utf-8"))
    settings["route"] |= {"group_wait": LOOK, "group_interval": LOOK}
    [receiver] = settings["receivers"]
    (folder / "slack").write_text(f"{told}/slack")
    receiver["slack_configs"][0]["api_url_file"] = str(folder / "slack")
    receiver["webhook_configs"] = [{"url": f"{told}/webhook"}]
    command = [
        tool("alertmanager"), f"--config.file={written(folder / 'alertmanager.yml', settings)}",
        f"--storage.path={folder / 'alertmanager'}", "--web.listen-address=127.0.0.1:0", "--cluster.listen-address=",
    ]  # fmt: skip
    with running(folder, command, TEMPLATES if TEMPLATES.is_dir() else folder) as address:
        yield address


@contextmanager
def watching(folder: Path, gateway: str, alertmanager: str) -> Iterator[str]:
    """Prometheus with our configuration and rules, but for addresses, how often it looks, and how long an expert has to be down."""
    settings = json.loads(json.dumps(prometheus()))  # its own copy
    settings["global"] |= {"scrape_interval": LOOK, "scrape_timeout": LOOK, "evaluation_interval": LOOK}
    settings["scrape_configs"] = [
        {"job_name": "moe-gateway", "static_configs": [{"targets": [gateway.removeprefix("http://")]}]}
    ]
    settings["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [alertmanager]}]}]
    [down] = [rule for rule in alerts() if rule["alert"] == "ExpertDown"]
    rules = (PROMETHEUS / "alerts.yml").read_text("utf-8")
    before, name, after = rules.partition("- alert: ExpertDown\n")
    (folder / "alerts.yml").write_text(before + name + after.replace(f"for: {down['for']}\n", "for: 1s\n", 1))
    (folder / "rules.yml").write_text((PROMETHEUS / "rules.yml").read_text("utf-8"))
    command = [
        tool("prometheus"), f"--config.file={written(folder / 'prometheus.yml', settings)}",
        f"--storage.tsdb.path={folder / 'prometheus'}", "--web.listen-address=127.0.0.1:0",
        "--web.console.templates=", "--web.console.libraries=", "--enable-feature=expand-external-labels",
    ]  # fmt: skip
    with running(folder, command, folder, RUNBOOKS=RUNBOOKS) as address:
        yield address


@pytest.mark.timeout(8 * PATIENCE)
def test_an_expert_that_goes_down_is_told_and_so_is_that_it_is_back(
    start: Start, servers: list[FakeServer], tmp_path: Path
) -> None:
    gateway = start(experts_yaml(*servers[:2]), health_interval=0.2)
    with (
        listener() as whoever,
        alertmanager(tmp_path, whoever.url) as address,
        watching(tmp_path, gateway.url, address),
    ):
        servers[0].healthy = False
        message = whoever.heard("/webhook", "firing")
        [alert] = message["alerts"]
        said = {
            "summary": "No replica of one may be asked",
            "description": "Its fallbacks answer in its place. GET /admin/experts says what is wrong with each replica.",
            "runbook_url": f"{RUNBOOKS}/ExpertDown.md",
        }
        assert message["receiver"] == "slack"
        assert alert["labels"] == {"alertname": "ExpertDown", "expert": "one", "severity": "critical"}
        assert alert["annotations"] == said
        [attachment] = whoever.heard("/slack", "firing")["attachments"]
        assert attachment["title"] == "FIRING ExpertDown"
        assert attachment["text"].split("\n")[:3] == list(said.values())

        servers[0].healthy = True
        [ended] = whoever.heard("/webhook", "resolved")["alerts"]
        assert (ended["status"], ended["labels"]) == ("resolved", alert["labels"])
        [attachment] = whoever.heard("/slack", "resolved")["attachments"]
        assert attachment["title"] == "RESOLVED ExpertDown"
    assert {
        alert["labels"]["alertname"] for path, m in whoever.told if path == "/webhook" for alert in m["alerts"]
    } == {"ExpertDown"}
