"""A gateway as users start it, over vLLM servers that pretend, with a real Prometheus that asks all of them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.dashboards import prometheus
from tests.dashboards.grafana import milliseconds
from tests.dashboards.history import History
from tests.dashboards.prometheus import Prometheus
from tests.dashboards.traffic import ADMIN_KEY, BASELINE, GPU_HOUR, KEYS, PRICES, Row, Traffic, soon
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
NAMES = (*DOMAINS, "embedder", "legacy", "busy", "crowded", "slow", "shaky", "archivist")
SMALL = ("coder", "biologist", "general")  # of the second gateway
ODD = {"general": 0.1}  # of those that nothing is routed to
WATTS = {"coder": 700.0, "mathematician": 700.0}
GRAMS = 380.0  # CO2e a kWh
# What every answer of a target has had; `up` has a sample as well where there was no answer in time.
TOLD_ALWAYS = '{__name__=~"moe_build_info|vllm:num_requests_running",job=~"moe-gateway|vllm"}'


def experts_file(servers: Mapping[str, Worker], *names: str) -> dict[str, Any]:
    """experts.yaml: four specialists and others, each with something of its own to show; with `names`, those alone."""
    timeouts = {"connect": "1m", "first_byte": "10m", "idle": "10m", "total": "20m"}

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

    experts = {
        "coder": expert("coder", fallbacks=["general"]),
        "mathematician": expert("mathematician", fallbacks=["general"]),
        "biologist": expert("biologist", fallbacks=["general"]),
        "general": expert("general"),
        "embedder": expert("embedder", endpoints=["embeddings"]),
        "legacy": expert("legacy"),
        "busy": expert("busy", max_in_flight=1, queue={"length": 1, "wait": "2s"}),
        "crowded": expert("crowded", max_in_flight=2, queue={"length": 1, "wait": "10m"}),
        "slow": expert("slow", timeouts=timeouts | {"first_byte": "300ms"}),
        "shaky": expert("shaky"),
        "archivist": expert("archivist", upstream={"launch": {"engine": "vllm"}}, sleep_after="10m"),
    }
    chosen = {name: about for name, about in experts.items() if not names or name in names}
    return {"version": 1, "router": {"fallback": "general"}, "baseline": BASELINE[0], "experts": chosen}


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


@dataclass(frozen=True)
class Times:
    """Of the samples in a range: seconds before the first, between first and last, after the last; how many there are."""

    before: float
    between: float
    after: float
    samples: int

    def stretch(self, first: float, last: float) -> float:
        """By what `increase` multiplies the difference of a counter's first and last value: it goes on to the range's ends where
        those are less than 1.1 of the mean distance of two samples away, else by half of it; and never below 0."""
        mean, before = self.between / (self.samples - 1), self.before
        if last > first:
            before = min(before, self.between * first / (last - first))
        ends = [end if end < 1.1 * mean else mean / 2 for end in (before, self.after)]
        return (self.between + sum(ends)) / self.between


@dataclass
class Rig:
    """`before` and `after` are when Prometheus asked the gateway, in unix seconds, with the traffic in `traffic.sent` between, and
    nothing just before and just after it. `known` is what every target had said when it was first asked, and at those times: all
    series were there from the first."""

    prometheus: Prometheus
    traffic: Traffic
    other: Traffic
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
            stretch = self._times(instance, over or self.seconds).stretch(before, after)
            sums[key] = sums.get(key, 0.0) + (after - before) * stretch
        return sums

    def counted(self, name: str, *by: str) -> Figures:
        """The same, as it is."""
        sums: Figures = {}
        for key, _, before, after in self._matching(name, by, {}):
            sums[key] = sums.get(key, 0.0) + after - before
        return sums

    def least(self, name: str, **only: str) -> Figures:
        """The lowest of them."""
        return {(): min(after for *_, after in self._matching(name, (), only))}

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

    def _times(self, instance: str, over: float) -> Times:
        """When a target was asked, and answered, in so many seconds until the end."""
        key = instance, round(over * 1000)
        if key not in self._known_times:
            matching = f'{TOLD_ALWAYS.removesuffix("}")},instance="{instance}"}}[{key[1]}ms]'
            [told] = self.prometheus.matrix(matching, self.after)
            first, last = told.points[0][0], told.points[-1][0]
            self._known_times[key] = Times(
                first - (self.after - over), last - first, self.after - last, len(told.points)
            )
        return self._known_times[key]

    _known_times: dict[tuple[str, int], Times] = field(default_factory=dict)

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
def gateways(folder: Path) -> Iterator[tuple[Traffic, Traffic]]:
    """The command over workers that pretend, and once more with three of the experts and two processes; who asks each of them."""
    servers = {name: Worker(f"model-{name}") for name in NAMES}
    asleep = facts("archivist-0", "asleep", since=time.time(), wake_seconds=4.0)
    environment = {
        "MOE_GATEWAY_KEYS": ",".join(f"{name}:{key}" for name, key in KEYS.items()),
        "MOE_GATEWAY_ADMIN_KEY": ADMIN_KEY,
    }
    with (
        workers(*servers.values()),
        fake_owner(folder / "state", asleep) as owner,
        httpx.Client(timeout=4 * PATIENCE) as client,  # a reload takes seconds of a processor
        ExitStack() as stack,
        ThreadPoolExecutor(2) as threads,
    ):

        def started(name: str, *experts: str, processes: int = 1) -> Traffic:
            config = folder / f"{name}.yaml"
            config.write_text(json.dumps(experts_file(servers, *experts), indent=1))
            arguments = "--config", str(config), "--state", str(folder / name), "--processes", str(processes)
            # What is counted is reloads that are asked for, not whether a save was seen before.
            command = stack.enter_context(serve(*arguments, "--watch", "off", environment=environment))
            return Traffic(command.url, config, servers, owner, client)

        second = threads.submit(started, "second", *SMALL, processes=2)
        yield started("state"), second.result()


@contextmanager
def rig(folder: Path) -> Iterator[Rig]:
    """All of it, with one lap of traffic behind it that made most series, and one that is counted."""
    history = History(now=time.time() // 60 * 60)
    prometheus.backfilled(folder, history.text())
    with gateways(folder) as (traffic, other):
        traffic.lap(copies=1, first=True)
        other.small_lap()
        jobs: dict[str, list[dict[str, Any]]] = {
            "moe-gateway": [{"targets": [one.target for one in (traffic, other)]}],
            "vllm": [{"targets": [w.target], "labels": {"expert": name}} for name, w in traffic.workers.items()],
        }
        with prometheus.running(folder, prometheus.configured(folder, jobs)) as server:
            _, before = _quiet(server, traffic, other)
            traffic.forget()
            other.sent, other.tokens_of_keys = traffic.sent, traffic.tokens_of_keys
            other.small_lap()
            traffic.lap()
            with traffic.crowded():
                told, after = _quiet(server, traffic, other)
            known = _first(server, after - 3600, after), _first(server, before, after), _all(server, after)
            yield Rig(server, traffic, other, history, before, after, known, told, server.firing())


def _quiet(server: Prometheus, *traffics: Traffic) -> tuple[str, float]:
    """What the first gateway told when all was quiet, and when Prometheus saw it so: every target had said its last before, and
    says the same once more after it, so that ranges may begin and end there."""
    told = [_settled(traffic) for traffic in traffics]
    targets = len(traffics) + len(traffics[0].workers)
    assert server.scraped(time.time(), targets)
    assert server.scraped(time.time(), targets)
    [asked] = server.instant(f'timestamp(moe_build_info{{instance="{traffics[0].target}"}})', time.time())
    assert server.scraped(time.time(), targets)
    return told[0], asked.last


def _first(server: Prometheus, start: float, end: float) -> Values:
    """Every series as each target first told it in that time."""
    known: dict[Row, float] = {}
    for told in server.matrix(f"{TOLD_ALWAYS}[{milliseconds(end - start)}]", end):
        known |= _all(server, told.points[0][0], told.labels["instance"])
    return known


def _all(server: Prometheus, at: float, instance: str = ".*") -> Values:
    """Every series of every target, or of one."""
    return {
        (series.labels["__name__"], frozenset((k, v) for k, v in series.labels.items() if k != "__name__")): series.last
        for series in server.instant(f'{{job=~"moe-gateway|vllm",instance=~"{instance}"}}', at)
    }


def _settled(traffic: Traffic) -> str:
    """The gateway's /metrics, once every request is counted that has ended, and is held no more: books are closed just after the
    last byte."""
    told = [""]

    def settled() -> bool:
        told[0] = traffic.client.get(f"{traffic.url}/metrics").text
        values = read_values(told[0])
        counted = sum(value for (name, _), value in values.items() if name == "moe_requests_total")
        held = sum(value for (name, _), value in values.items() if name == "moe_requests_in_flight")
        return counted >= traffic.requests and held == traffic.held

    assert soon(settled), told[0]
    return told[0]
