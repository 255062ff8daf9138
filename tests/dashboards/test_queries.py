"""Every query of every dashboard on a real Prometheus that asked a real gateway: it has data, and says what was sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pytest

from tests.dashboards.grafana import Dashboard, Panel, Target, dashboards, filled, finite, milliseconds
from tests.dashboards.history import day_start, month_start
from tests.dashboards.prometheus import Series
from tests.dashboards.rig import Rig, read_values, rig
from tests.dashboards.traffic import GPU_HOUR, Row
from tests.dashboards.truths import TRUTHS, Truth, View

pytestmark = pytest.mark.timeout(600)  # of the first one, who starts everything, on however busy a machine
PANELS = [panel for dashboard in dashboards() for panel in dashboard.panels]
NOTHING = 1e-12  # USD or anything else


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with rig(tmp_path_factory.mktemp("rig")) as made:
        yield made


def variables(over: float) -> dict[str, str]:
    """Those of Grafana's own, where it looks back so long and draws no finer than that."""
    return {
        "__range": milliseconds(over),
        "__rate_interval": milliseconds(over),
        "__interval": milliseconds(over),
        "interval": "1s",
    }


def values(found: Sequence[Series], truth: Truth) -> dict[tuple[str, ...], float]:
    """The last of each series, by the labels of which the truth is told."""
    assert all(series.labels.keys() - {"__name__"} <= set(truth.by) for series in found), (found, truth.by)
    return {tuple(series.labels.get(label, "") for label in truth.by): series.last for series in found}


def seconds_back(panel: Panel, running: Rig) -> float | None:
    """What a panel with a time of its own looks back on; the traffic at least, which may have begun before midnight."""
    since = {"now/d": day_start, "now/M": month_start}.get(panel.time_from)
    return None if since is None else max(running.seconds, running.after - since(running.after))


def chosen(panel: Panel, running: Rig) -> list[Panel]:
    """It, or it in the row of every expert."""
    return [panel.of(expert) for expert in running.traffic.workers] if panel.repeat else [panel]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: f"{panel.dashboard}/{panel.title}")
def test_a_panel_shows_what_was_sent(running: Rig, panel: Panel) -> None:
    truths = TRUTHS[panel.dashboard][panel.title]
    assert len(truths) == len(panel.targets)
    for target, truth in zip(panel.targets, truths, strict=True):
        shown = [
            _compared(running, one, target, truth, {one.repeat: one.chosen} if one.chosen else {})
            for one in chosen(panel, running)
        ]
        if not truth.zero:
            assert any(shown), f"{target.ref}: no data"
            assert any(abs(value) > NOTHING for one in shown for value in one.values()), f"{target.ref}: nothing but 0"


def _compared(
    running: Rig, panel: Panel, target: Target, truth: Truth, labels: Mapping[str, str]
) -> dict[tuple[str, ...], float]:
    """What it shows over all of the traffic, when that is what it should be; `labels` are what is chosen of it."""
    over = seconds_back(panel, running)
    query = panel.filled(target, {**variables(over or running.seconds), **labels})
    shown = finite(values(running.prometheus.instant(query, running.after), truth))
    expected = truth.figure(View(running, labels, over))
    for key in shown.keys() | expected.keys():
        known = shown.get(key, 0.0), expected.get(key, 0.0)
        assert known[0] == pytest.approx(known[1], rel=truth.close, abs=NOTHING), (
            panel.title,
            target.ref,
            key,
            known,
            query,
        )
    return shown


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: f"{panel.dashboard}/{panel.title}")
def test_a_panel_shows_what_was_chosen(running: Rig, panel: Panel) -> None:
    """Two experts, one domain, one gateway: where its query says that it heeds them."""
    choice = {"expert": "(coder|general)", "domain": "code", "instance": running.other.target}
    for target, truth in zip(panel.targets, TRUTHS[panel.dashboard][panel.title], strict=True):
        heeded = {name: value for name, value in choice.items() if f"${name}" in target.expr}
        if heeded and not panel.repeat:
            _compared(running, panel, target, truth, heeded)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: f"{panel.dashboard}/{panel.title}")
def test_a_panel_is_drawn_over_time(running: Rig, panel: Panel) -> None:
    """As Grafana asks it while one looks: a point a second, and rates over four."""
    fine = {"__range": milliseconds(running.seconds), "__rate_interval": "4s", "__interval": "1s", "interval": "1s"}
    for target, truth in zip(panel.targets, TRUTHS[panel.dashboard][panel.title], strict=True):
        if target.instant or truth.zero:
            continue
        drawn = [
            series
            for one in chosen(panel, running)
            for series in running.prometheus.over(one.filled(target, fine), running.before, running.after, 1)
        ]
        assert any(point == point for series in drawn for _, point in series.points), target.ref


def test_no_panel_is_without_a_truth() -> None:
    assert {name: set(panels) for name, panels in TRUTHS.items()} == {
        d.name: {p.title for p in d.panels} for d in dashboards()
    }


def test_prometheus_knows_what_the_gateway_says(running: Rig) -> None:
    """Of what only requests move: clocks, memory and connections went on."""
    moving = (
        "moe_process_", "moe_event_loop_", "moe_worker_asleep_", "moe_capacity_", "moe_energy_", "moe_emissions_", "moe_ledger_",
        "moe_open_connections",
    )  # fmt: skip

    def still(name: str) -> bool:
        return name.startswith("moe_") and not name.startswith(moving) and not name.endswith("_created")

    told = {row: value for row, value in read_values(running.told).items() if still(row[0])}
    seen: dict[Row, float] = {}
    for (name, labels), value in running.known[-1].items():
        if still(name) and ("instance", running.traffic.target) in labels:
            seen[name, frozenset(pair for pair in labels if pair[0] not in ("job", "instance"))] = value
    assert seen == told


def test_the_gateway_counted_what_was_sent(running: Rig) -> None:
    sent = running.traffic.sent
    for name in sorted(sent.names):
        labels = sent.labels(name)
        counted = {key: value for key, value in running.counted(name, *labels).items() if abs(value) > NOTHING}
        assert counted == pytest.approx(sent.by(name, *labels)), (name, labels)


def test_gpus_by_the_hour_cost_what_the_clock_says(running: Rig) -> None:
    grown = running.grown("moe_capacity_cost_usd_total", "expert")
    # Prometheus' time stamp is when it asked; the gateway's answer came some milliseconds later.
    assert grown == pytest.approx({(e,): usd * running.seconds / 3600 for e, usd in GPU_HOUR.items()}, rel=0.05)


def test_keys_pay_for_their_tokens_and_for_the_time_of_gpus(running: Rig) -> None:
    keys, tokens = running.grown("moe_key_cost_usd_total", "key"), running.traffic.tokens_of_keys
    assert {(key,) for key in tokens} == keys.keys()
    assert all(keys[key,] > usd > 0 for key, usd in tokens.items())
    [paid], [idle] = (running.grown(f"moe_capacity_{word}cost_usd_total").values() for word in ("", "idle_"))
    assert sum(keys.values()) == pytest.approx(sum(tokens.values()) + paid - idle, rel=0.1)


@pytest.mark.parametrize("dashboard", dashboards(), ids=lambda dashboard: dashboard.name)
def test_variables_have_values_and_reloads_are_marked(running: Rig, dashboard: Dashboard) -> None:
    for name, query in dashboard.variables.items():
        selector, _, label = query.removeprefix("label_values(").removesuffix(")").rpartition(",")
        assert len(running.prometheus.label_values(label.strip(), selector, running.before)) >= (
            1 if name == "instance" else 4
        )
    for query in dashboard.annotations:
        marks = running.prometheus.over(filled(query, variables(60)), running.before, running.after, 1)
        assert any(point for series in marks for _, point in series.points)


@pytest.mark.parametrize("dashboard", dashboards(), ids=lambda dashboard: dashboard.name)
def test_panels_stand_beside_each_other(dashboard: Dashboard) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard.panels:
        x, y, width, height = panel.place
        assert x + width <= 24, f"{panel.title} reaches beyond the edge"
        for cell in ((x + i, y + j) for i in range(width) for j in range(height)):
            assert taken.setdefault(cell, panel.title) == panel.title, f"{panel.title} lies over {taken[cell]}"
