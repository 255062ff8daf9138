"""docs/dashboards/*.png: every dashboard drawn from what its queries gave after minutes of traffic. Not Grafana's own picture.

python -m tests.dashboards.draw --minutes 15
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from tests.dashboards import prometheus
from tests.dashboards.grafana import Dashboard, Panel, Row, dashboards, filled, milliseconds
from tests.dashboards.history import History, day_start, month_start
from tests.dashboards.looks import GROUND, INK, Answer, Painter
from tests.dashboards.prometheus import Prometheus
from tests.dashboards.scene import KEYS, Scene, experts_file, servers
from tests.dashboards.traffic import ADMIN_KEY
from tests.dashboards.workers import workers
from tests.deploy.files import ROOT
from tests.fakes.owner import facts, fake_owner
from tests.integration.conftest import serve

FOLDER = ROOT / "docs" / "dashboards"
DPI, WIDTH, MARGIN, HEAD = 100, 16.0, 0.12, 0.95  # inches, but for the first
COLUMN, LINE, GAP = (WIDTH - 2 * MARGIN) / 24, 0.345, 0.07  # of Grafana's grid
SCRAPE = 2.0  # seconds
FINEST = 15.0  # seconds between two points, as the dashboards' own variable has it
POINTS = 240  # of a line, at the most
REPEATED = ("coder", "archivist")  # of the rows that Grafana repeats for every expert


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw docs/dashboards/*.png from minutes of real traffic.")
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--output", type=Path, default=FOLDER)
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, picture in pictures(Path(folder), given.minutes * 60):
            (given.output / f"{name}.png").write_bytes(picture)
            print(f"{name}.png: {len(picture) / 1000:.0f} kB", flush=True)


def pictures(folder: Path, seconds: float) -> Iterator[tuple[str, bytes]]:
    """Each dashboard's name and its picture, after so many seconds of traffic."""
    prometheus.backfilled(folder, History(now=time.time() // 60 * 60).text())
    crew, state, config = servers(), folder / "state", folder / "experts.yaml"
    environment = {
        "MOE_GATEWAY_KEYS": ",".join(f"{name}:{key}" for name, key in KEYS.items()), "MOE_GATEWAY_ADMIN_KEY": ADMIN_KEY,
    }  # fmt: skip
    everyone = [worker for group in crew.values() for worker in group]
    asleep = facts("archivist-0", "asleep", since=time.time(), wake_seconds=6.2)
    with workers(*everyone), fake_owner(state, asleep) as owner:
        config.write_text(json.dumps(experts_file(crew), indent=1))
        with serve(
            "--config", str(config), "--state", str(state), "--watch", "off", environment=environment
        ) as command:
            jobs: dict[str, list[dict[str, Any]]] = {
                "moe-gateway": [{"targets": [command.url.removeprefix("http://")]}],
                "vllm": [
                    {"targets": [w.target for w in group], "labels": {"expert": name}} for name, group in crew.items()
                ],
            }
            with prometheus.running(folder, prometheus.configured(folder, jobs, SCRAPE)) as server:
                start = time.time()
                scene = Scene(command.url, config, crew, owner, seconds)
                asyncio.run(scene.play())
                end = scene.over  # those who ask then are still being answered
                for dashboard in dashboards():
                    yield dashboard.name, drawn(server, dashboard, start, end)


def drawn(server: Prometheus, dashboard: Dashboard, start: float, end: float) -> bytes:
    """A PNG of it."""
    parts = list(laid_out(dashboard))
    height = HEAD + MARGIN + max(y + rows for y, rows, _ in parts) * LINE
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor=GROUND)
    painter = Painter(figure, WIDTH, height, start, end, marks=_marks(server, dashboard, start, end))
    _head(painter, dashboard, start, end)
    for y, rows, part in parts:
        top = HEAD + y * LINE
        if isinstance(part, Row):
            painter.heading(part.title, MARGIN, top, WIDTH)
            continue
        x, _, columns, _ = part.place
        place = MARGIN + x * COLUMN + GAP / 2, top + GAP / 2, columns * COLUMN - GAP, rows * LINE - GAP
        painter.panel(part, place, answers(server, part, start, end))
    buffer = BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)  # type: ignore[no-untyped-call]
    return _small(buffer)


def laid_out(dashboard: Dashboard) -> Iterator[tuple[int, int, Row | Panel]]:
    """Its rows and panels, each with its line and how many it takes; repeated rows as often as they are drawn."""
    shift, repeated = 0, [part for part in dashboard.parts if part.repeat]
    for part in dashboard.parts:
        if not part.repeat:
            yield (part.y, 1, part) if isinstance(part, Row) else (part.place[1] + shift, part.place[3], part)
    for value in REPEATED if repeated else ():
        for part in repeated:
            if isinstance(part, Row):
                yield part.y + shift, 1, Row(f"{value}   (one such row an expert)", part.y)
            else:
                yield part.place[1] + shift, part.place[3], part.of(value)
        ends = [part.place[1] + part.place[3] for part in repeated if isinstance(part, Panel)]
        shift += max(ends) - min(part.y for part in repeated if isinstance(part, Row))


def answers(server: Prometheus, panel: Panel, start: float, end: float) -> list[Answer]:
    """What its queries give over the time shown, or at its end."""
    since = {"now/d": day_start, "now/M": month_start}.get(panel.time_from)
    from_ = start if since is None else min(start, since(end))
    step = max(FINEST, (end - from_) / POINTS)
    values = {
        "__range": milliseconds(end - from_), "__rate_interval": milliseconds(max(step + SCRAPE, 4 * SCRAPE)),
        "__interval": milliseconds(step), "interval": milliseconds(FINEST),
    }  # fmt: skip
    made = []
    for target in panel.targets:
        query = panel.filled(target, values)
        found: Sequence[Any] = server.instant(query, end) if target.instant else server.over(query, from_, end, step)
        made.append(Answer(target, found))
    return made


def _marks(server: Prometheus, dashboard: Dashboard, start: float, end: float) -> list[float]:
    """When experts.yaml was loaded, by the dashboard's own annotation."""
    values: Mapping[str, str] = {"__interval": "2s", "interval": "2s"}
    found = {
        value / 1000
        for query in dashboard.annotations
        for series in server.over(filled(query, values), start, end, SCRAPE)
        for _, value in series.points
    }
    return sorted(mark for mark in found if start <= mark <= end)


def _head(painter: Painter, dashboard: Dashboard, start: float, end: float) -> None:
    begin, finish = (datetime.fromtimestamp(at, UTC) for at in (start, end))
    painter.text(MARGIN + 0.05, 0.30, dashboard.title, size=17, weight="bold", color=INK)
    painter.text(
        MARGIN + 0.05, 0.66,
        "Drawn by matplotlib from what this dashboard's queries gave on a real Prometheus, after real requests to a gateway over "
        f"servers that pretend to be vLLM, {begin:%Y-%m-%d %H:%M}–{finish:%H:%M} UTC. Not Grafana's own picture.",
        size=9, color="#6b7280",
    )  # fmt: skip


def _small(buffer: BytesIO) -> bytes:
    """With a palette of 128 colours: a quarter of the size, and nobody sees it."""
    made = BytesIO()
    Image.open(buffer).convert("RGB").quantize(128, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
        made, "PNG", optimize=True
    )
    return made.getvalue()


if __name__ == "__main__":
    main()
