"""A real Prometheus on loopback: started with what it is to scrape and what lies behind it, and asked as Grafana asks."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from ruamel.yaml import YAML

from tests.deploy.files import PROMETHEUS, tool
from tests.deploy.files import prometheus as shipped
from tests.fakes.upstream import PATIENCE

INTERVAL = 1  # seconds between two scrapes, and two looks at the rules
KEPT = "60d"


@dataclass(frozen=True)
class Series:
    """What one query gave for one set of labels: (unix seconds, value) in order."""

    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]

    @property
    def last(self) -> float:
        return self.points[-1][1]


class RefusedError(Exception):
    """Prometheus does not take the query; the text is its own."""


@dataclass
class Prometheus:
    """`url` is where it is asked."""

    url: str
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=PATIENCE), repr=False)

    def instant(self, query: str, at: float) -> list[Series]:
        """Its value at `at`, in unix seconds. Raises RefusedError."""
        result = self._ask("query", query=query, time=at)
        if result["resultType"] in ("scalar", "string"):
            return [Series({}, [_point(result["result"])])]
        return [Series(one["metric"], [_point(one["value"])]) for one in result["result"]]

    def over(self, query: str, start: float, end: float, step: float) -> list[Series]:
        """Its values from `start` to `end`. Raises RefusedError."""
        result = self._ask("query_range", query=query, start=start, end=end, step=step)
        return [Series(one["metric"], [_point(p) for p in one["values"]]) for one in result["result"]]

    def matrix(self, selector: str, at: float) -> list[Series]:
        """The samples of a selector with a range that ends at `at`. Raises RefusedError."""
        result = self._ask("query", query=selector, time=at)
        return [Series(one["metric"], [_point(p) for p in one["values"]]) for one in result["result"]]

    def firing(self) -> int:
        """How many alerts fire now."""
        alerts = self.client.get(f"{self.url}/api/v1/alerts").json()["data"]["alerts"]
        return sum(alert["state"] == "firing" for alert in alerts)

    def label_values(self, label: str, selector: str, start: float) -> list[str]:
        """Those that a series of `selector` has had since `start`."""
        told = self.client.get(f"{self.url}/api/v1/label/{label}/values", params={"match[]": selector, "start": start})
        values: list[str] = told.json()["data"]
        return values

    def scraped(self, after: float, targets: int) -> bool:
        """Whether each of so many targets was asked, and answered, after `after`, in unix seconds."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            now = time.time()
            up = {series.labels["instance"] for series in self.instant("up == 1", now)}
            # Of an expression timestamp() gives the time at which it is asked: this must be a selector alone.
            stamps = [s.last for s in self.instant("timestamp(up)", now) if s.labels["instance"] in up]
            if len(stamps) >= targets and min(stamps) > after:
                return True
            time.sleep(0.1)
        return False

    def _ask(self, kind: str, **parameters: Any) -> Any:
        told = self.client.post(f"{self.url}/api/v1/{kind}", data=parameters).json()
        if told["status"] != "success":
            raise RefusedError(told["error"])
        return told["data"]


def _point(pair: Sequence[Any]) -> tuple[float, float]:
    return float(pair[0]), float(pair[1])


def configured(folder: Path, jobs: Mapping[str, Sequence[Mapping[str, Any]]], interval: float = INTERVAL) -> Path:
    """deploy/prometheus's own file and rules, but for where the targets are, and how often they are asked. `jobs` has what is
    asked for each job there: targets with labels."""
    settings = json.loads(json.dumps(shipped()))  # its own copy
    every = f"{round(interval * 1000)}ms"
    settings["global"] = {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every}
    settings["rule_files"] = [str(PROMETHEUS / name) for name in settings["rule_files"]]
    del settings["alerting"]
    settings["scrape_configs"] = [
        {"job_name": job["job_name"], "static_configs": list(jobs[job["job_name"]])}
        for job in settings["scrape_configs"]
        if job["job_name"] in jobs
    ]
    path = folder / "prometheus.yml"
    with path.open("w") as file:
        YAML(typ="safe").dump(settings, file)
    return path


def backfilled(folder: Path, openmetrics: str) -> Path:
    """A database with these samples, in OpenMetrics with time stamps."""
    (folder / "history.om").write_text(openmetrics)
    database = folder / "data"
    done = subprocess.run(
        [tool("promtool"), "tsdb", "create-blocks-from", "openmetrics", str(folder / "history.om"), str(database)],
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return database


@contextmanager
def running(folder: Path, configuration: Path) -> Iterator[Prometheus]:
    """One over `folder`/data that is ready to be asked; it ends with the block."""
    with socket.socket() as held, (folder / "prometheus.log").open("w") as log:
        # Held for it, though nobody listens there: it takes no listening socket from us, and does not say which port 0 became.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as it does itself
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        command = [
            tool("prometheus"), f"--config.file={configuration}", f"--storage.tsdb.path={folder / 'data'}",
            f"--storage.tsdb.retention.time={KEPT}", f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
            "--web.console.templates=", "--web.console.libraries=",
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        found = Prometheus(f"http://127.0.0.1:{port}")
        try:
            assert _ready(found, process), (folder / "prometheus.log").read_text()[-3000:]
            yield found
        finally:
            found.client.close()
            process.kill()  # its database is nobody's any more
            process.wait()


def _ready(found: Prometheus, process: subprocess.Popen[bytes]) -> bool:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.poll() is None:
        try:
            if found.client.get(f"{found.url}/-/ready").status_code == 200:
                return True
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    return False
