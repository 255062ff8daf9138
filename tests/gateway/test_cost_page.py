"""The example of docs/cost.md is what the code makes of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry

from gateway.children import Children
from gateway.costmetrics import CostMetrics
from gateway.costs import Tariff, baseline_of
from gateway.exchange import Attempt, Exchange, Outcome
from gateway.pool import Pool
from gateway.usage import Usage
from router.decision import Decision, Switch
from router.experts import ExpertsFile, parse_experts

PAGE = (Path(__file__).parents[2] / "docs" / "cost.md").read_text("utf-8")
EXAMPLE = PAGE.partition("## An example")[2]
DAY, BUSY, DECIDING = 24 * 3600.0, 9 * 3600.0, 0.003


def rows(text: str, head: str) -> Iterator[list[str]]:
    """The cells of the table with that head."""
    table = text.partition(f"| {head}")[2].split("\n\n")[0]
    return ([cell.strip() for cell in line.strip("| ").split("|")] for line in table.splitlines()[2:])


def example_file() -> ExpertsFile:
    text = re.findall(r"```yaml\n(.*?)```", EXAMPLE, re.DOTALL)[0]
    entry = "model: m, domains: [general], upstream: {vllm: http://a.test/v1}"
    text = re.sub(
        r"^  (\w+): \{(.?)",
        lambda m: f"  {m[1]}: {{{entry.replace('a.test', m[1] + '.test')}, {m[2]}",
        text,
        flags=re.M,
    )
    return parse_experts(f"version: 1\n{text}".replace(", }", "}"))


class Day:
    """The traffic of the page, counted as a gateway counts it."""

    def __init__(self) -> None:
        self.file, self.now, self.registry = example_file(), 0.0, CollectorRegistry()
        self.tariff = Tariff(self.file.experts, self.file.router.cpu_hour)
        self.tariff.baseline = baseline_of(self.file)
        self.metrics = CostMetrics(self.registry, Children(), lambda: self.now)
        pool = Pool(self.file, {}, clock=lambda: self.now)
        self.metrics.watch(self.file.experts, pool.all())
        self.estimates: set[float] = set()
        (medic,) = pool.replicas["medic"]
        with pool.holding("medic", medic) as place:
            self.now = BUSY
        self.busy = place.seconds
        self.now = DAY
        self.metrics.refresh()
        for cells in rows(EXAMPLE, "requests"):
            self._answer(int(cells[0]), cells[1], *map(int, cells[2:]))

    def _answer(self, times: int, expert: str, fresh: int, cached: int, output: int, before: int) -> None:
        switched: Switch | None = "topic" if before else None
        decided = Decision(
            expert, "best", (), None, (), "a", DECIDING, switched, "general" if before else None, prefix=before
        )
        for _ in range(times):
            exchange = Exchange("r", "chat.completions", tariff=self.tariff, decision=decided, expert_id=expert,
                                expert=self.file.experts[expert], usage=Usage(fresh, cached, output))  # fmt: skip
            exchange.attempts.append(Attempt(expert, f"{expert}-0", 0.0, Outcome.OK, 1.0))
            exchange.took(expert, self.file.experts[expert], self.busy / times)
            exchange.finish(Outcome.OK, 200)
            self.metrics.observe(exchange)
        if exchange.charge.estimated is not None:
            self.estimates.add(exchange.charge.estimated)

    def value(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"moe_{name}_total", labels) or 0.0

    def cost(self, expert: str) -> float:
        samples = (s for f in self.registry.collect() for s in f.samples if s.name == "moe_cost_usd_total")
        return sum(sample.value for sample in samples if sample.labels["expert"] == expert)

    def figures(self) -> dict[str, float]:
        capacity = self.value("capacity_cost_usd", expert="medic")
        classifying, lost = (self.value("routing_cost_usd", part=part) for part in ("classifier", "lost_cache"))
        saved = {
            name: self.value("baseline_cost_usd", baseline=name)
            - self.value("compared_cost_usd", baseline=name) - capacity - classifying - lost
            for name in ("big", "dearest")
        }  # fmt: skip
        return {
            "token cost, coder": self.cost("coder"),
            "token cost, general": self.cost("general"),
            "capacity cost, medic": capacity,
            "of that, idle": self.value("capacity_idle_cost_usd", expert="medic"),
            "estimated cost of one request of the medic": max(self.estimates),
            "spent": self.cost("coder") + self.cost("general") + capacity,
            "baseline, big": self.value("baseline_cost_usd", baseline="big"),
            "compared": self.value("compared_cost_usd", baseline="big"),
            "routing: classifying": classifying,
            "routing: lost cache": lost,
            "saved": saved["big"],
            "share covered": 100 * self.value("compared_requests", baseline="big") / self.value("comparable_requests"),
            "baseline, dearest": self.value("baseline_cost_usd", baseline="dearest"),
            "saved against the dearest": saved["dearest"],
            "energy, medic": self.value("energy_wh", expert="medic"),
            "emissions, medic": self.value("emissions_gco2e", expert="medic"),
        }


def test_the_example_is_what_the_code_makes_of_it() -> None:
    told = {
        cells[0]: cells[1].partition(" ")[0].replace("−", "-").replace(",", "") for cells in rows(EXAMPLE, "figure")
    }
    figures = Day().figures()
    made = {name: f"{value:.{len(told[name].partition('.')[2])}f}" for name, value in figures.items()}
    assert told == made
