"""A gateway as users start it, over vLLM servers that pretend, with a real Prometheus that asks all of them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.dashboards import prometheus
from tests.dashboards.history import History
from tests.dashboards.prometheus import Prometheus
from tests.dashboards.traffic import ADMIN_KEY, BASELINE, GPU_HOUR, KEYS, PRICES, Row, Sent, Traffic, soon
from tests.dashboards.workers import Worker, workers
from tests.fakes.owner import facts, fake_owner
from tests.fakes.upstream import PATIENCE
from tests.integration.conftest import serve

DOMAINS: dict[str, dict[str, float]] = {
    "coder": {"code": 0.95, "math": 0.6},
    "mathematician": {"math": 0.95, "code": 0.7},
    "biologist": {"bio": 0.95},
    "general": {"general": 0.9, "code": 0.6, "math": 0.6, "bio": 0.6},
}
ODD = {"general": 0.1}  # of those that nothing is routed to
WATTS = {"coder": 700.0, "mathematician": 700.0}
GRAMS = 380.0  # CO2e a kWh


def experts_file(servers: Mapping[str, Worker]) -> dict[str, Any]:
    """experts.yaml: four specialists and six others, each with something of its own to show."""
    timeouts = {"connect": "5s", "first_byte": "1s", "idle": "5s", "total": "30s"}

    def expert(name: str, **more: Any) -> dict[str, Any]:
        return {
            "model": servers[name].model,
            "domains": DOMAINS.get(name, ODD),
            "upstream": {"vllm": [servers[name].url]},
            "timeouts": timeouts,
            **({"price": price_of(name)} if name in PRICES or name in GPU_HOUR else {}),
            **({"energy": {"watts": WATTS[name], "gco2e_per_kwh": GRAMS}} if name in WATTS else {}),
            **more,
        }

    return {
        "version": 1,
        "router": {"fallback": "general"},
        "baseline": BASELINE[0],
        "experts": {
            "coder": expert("coder", fallbacks=["general"]),
            "mathematician": expert("mathematician", fallbacks=["general"]),
            "biologist": expert("biologist", fallbacks=["general"]),
            "general": expert("general"),
            "embedder": expert("embedder", endpoints=["embeddings"]),
            "legacy": expert("legacy"),
            "busy": expert("busy", max_in_flight=1, queue={"length": 1, "wait": "300ms"}),
            "shaky": expert("shaky"),
            "archivist": expert("archivist", upstream={"launch": {"engine": "vllm"}}, sleep_after="10m"),
        },
    }


def price_of(expert: str) -> dict[str, float]:
    if expert in GPU_HOUR:
        return {"gpu_hour": GPU_HOUR[expert]}
    return dict(zip(("input", "cached_input", "output"), PRICES[expert], strict=True))


Values = Mapping[Row, float]
Figures = dict[tuple[str, ...], float]


def read_values(text: str) -> Values:
    """Every series of an exposition, by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@dataclass
class Rig:
    """`before` and `after` are when Prometheus asked the gateway, in unix seconds, with the traffic in `traffic.sent` between, and
    nothing just before and just after it. `known` is what every target had said when it was first asked, and at those times: all
    series were there from the first."""

    prometheus: Prometheus
    traffic: Traffic
    history: History
    before: float
    after: float
    known: tuple[Values, Values, Values]
    told: str  # by the gateway's own /metrics, after all of it
    firing: int  # alerts, after all of it

    @property
    def seconds(self) -> float:
        return self.after - self.before

    def grown(self, name: str, *by: str, over: float | None = None, **only: str) -> Figures:
        """By how much the series of that name grew, summed by the labels `by`, of those whose labels are wholly matched by the
        expressions `only`; as Prometheus stretches what it knows of the last `over` seconds, without it of the traffic."""
        sums: Figures = {}
        for key, instance, before, after in self._matching(name, by, only, first=over is not None):
            sums[key] = sums.get(key, 0.0) + (after - before) * self.stretch(instance, over or self.seconds)
        return sums

    def now(self, name: str, *by: str, **only: str) -> Figures:
        """What they are after it, summed."""
        sums: Figures = {}
        for key, _, _, after in self._matching(name, by, only):
            sums[key] = sums.get(key, 0.0) + after
        return sums

    def most(self, name: str, *by: str, **only: str) -> Figures:
        """The highest of them."""
        found: Figures = {}
        for key, _, _, after in self._matching(name, by, only):
            found[key] = max(found.get(key, after), after)
        return found

    def stretch(self, instance: str, over: float) -> float:
        """By what `increase` multiplies what it saw of a target: its samples lie within the range, and it goes on to the range's
        ends where those are less than 1.1 of the mean distance away, else by half of that distance."""
        key = instance, round(over * 1000)
        if key not in self._stretches:
            # One that every answer of the target had: when it did not answer in time `up` has a sample all the same.
            selector = f'{{__name__=~"moe_build_info|vllm:num_requests_running",instance="{instance}"}}'
            [told] = self.prometheus.matrix(f"{selector}[{key[1]}ms]", self.after)
            first, last, steps = told.points[0][0], told.points[-1][0], len(told.points) - 1
            mean = (last - first) / steps
            ends = first - (self.after - over), self.after - last
            beyond = sum(end if end < 1.1 * mean else mean / 2 for end in ends)
            self._stretches[key] = (last - first + beyond) / (last - first)
        return self._stretches[key]

    _stretches: dict[tuple[str, int], float] = field(default_factory=dict)

    def _matching(
        self, name: str, by: tuple[str, ...], only: Mapping[str, str], first: bool = False
    ) -> Iterator[tuple[tuple[str, ...], str, float, float]]:
        """(values of `by`, target, before, after) of each series; with `first`, before is when it was first asked."""
        known_first, known_before, after = self.known
        before = known_first if first else known_before
        for (row, labels), value in after.items():
            known = dict(labels)
            if row == name and all(re.fullmatch(values, known.get(label, "")) for label, values in only.items()):
                yield (
                    tuple(known.get(label, "") for label in by),
                    known["instance"],
                    before.get((row, labels), 0.0),
                    value,
                )


@contextmanager
def gateway(folder: Path) -> Iterator[Traffic]:
    """The command over workers that pretend, and who asks it."""
    names = [*DOMAINS, "embedder", "legacy", "busy", "shaky", "archivist"]
    servers = {name: Worker(f"model-{name}") for name in names}
    state, config = folder / "state", folder / "experts.yaml"
    environment = {
        "MOE_GATEWAY_KEYS": ",".join(f"{name}:{key}" for name, key in KEYS.items()),
        "MOE_GATEWAY_ADMIN_KEY": ADMIN_KEY,
    }
    with (
        workers(*servers.values()),
        fake_owner(state, facts("archivist-0", "asleep", since=time.time(), wake_seconds=4.0)) as owner,
    ):
        config.write_text(json.dumps(experts_file(servers), indent=1))
        with (
            serve("--config", str(config), "--state", str(state), environment=environment) as command,
            httpx.Client(timeout=PATIENCE) as client,
        ):
            yield Traffic(command.url, config, servers, owner, client)


@contextmanager
def rig(folder: Path) -> Iterator[Rig]:
    """All of it, with one lap of traffic behind it that made every series, and one that is counted."""
    history = History(now=time.time() // 60 * 60)
    prometheus.backfilled(folder, history.text())
    with gateway(folder) as traffic:
        traffic.lap(copies=1)
        jobs: dict[str, list[dict[str, Any]]] = {
            "moe-gateway": [{"targets": [traffic.url.removeprefix("http://")]}],
            "vllm": [{"targets": [w.target], "labels": {"expert": name}} for name, w in traffic.workers.items()],
        }
        with prometheus.running(folder, prometheus.configured(folder, jobs)) as server:
            _, before = _quiet(server, traffic)
            [asked] = server.matrix('moe_build_info{job="moe-gateway"}[1h]', before)
            first = asked.points[0][0]
            traffic.sent, traffic.tokens_of_keys = Sent(), dict.fromkeys(KEYS, 0.0)
            traffic.lap()
            told, after = _quiet(server, traffic)
            known = _all(server, first), _all(server, before), _all(server, after)
            yield Rig(server, traffic, history, before, after, known, told, server.firing())


def _quiet(server: Prometheus, traffic: Traffic) -> tuple[str, float]:
    """What the gateway told when all was quiet, and when Prometheus saw it so: every target had said its last before, and says the
    same once more after it, so that ranges may begin and end there."""
    told = _settled(traffic)
    targets = 1 + len(traffic.workers)
    assert server.scraped(time.time(), targets)
    assert server.scraped(time.time(), targets)
    [asked] = server.instant('timestamp(moe_build_info{job="moe-gateway"})', time.time())
    assert server.scraped(time.time(), targets)
    return told, asked.last


def _all(server: Prometheus, at: float) -> Values:
    """Every series of every target."""
    return {
        (series.labels["__name__"], frozenset((k, v) for k, v in series.labels.items() if k != "__name__")): series.last
        for series in server.instant('{job=~"moe-gateway|vllm"}', at)
    }


def _settled(traffic: Traffic) -> str:
    """The gateway's /metrics, once nothing is in flight and every request is counted: books are closed just after the last byte."""
    told = [""]

    def settled() -> bool:
        told[0] = traffic.client.get(f"{traffic.url}/metrics").text
        values = read_values(told[0])
        counted = sum(value for (name, _), value in values.items() if name == "moe_requests_total")
        held = sum(value for (name, _), value in values.items() if name == "moe_requests_in_flight")
        return counted >= traffic.requests and not held

    assert soon(settled), told[0]
    return told[0]
