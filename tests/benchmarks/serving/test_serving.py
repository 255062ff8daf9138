"""The whole benchmark in small: a real load through a real gateway."""

from __future__ import annotations

import json
import shutil
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.benchmarks.serving import load, measuring, ways
from tests.benchmarks.serving.__main__ import main
from tests.benchmarks.serving.bodies import Bodies
from tests.benchmarks.serving.mock import CHUNKS
from tests.benchmarks.serving.processes import NotUpError, free_port, serving

needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
MINE = ["straight", "pass-through", "auto"]


@needs_wrk
def test_a_small_run_measures_every_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "figures.json"
    asked = ["--ways", ",".join(MINE), "--clients", "4", "--kinds", "stream", "--rounds", "1", "--seconds", "1"]
    main([*asked, "--prompts", "3000", "--json", str(figures)])
    found = json.loads(figures.read_text())
    assert [(c["way"], c["kind"]) for c in found["cells"]] == [(w, "stream") for w in MINE]
    for cell in found["cells"]:
        assert cell["failed"] == 0
        assert cell["rate"]["median"] > 0
        assert cell["cpu"]["median"] > 0
        assert cell["resident"] > 1
    straight, by_name = found["cells"][:2]
    assert by_name["cpu"]["median"] > straight["cpu"]["median"]
    assert 0 < by_name["to_straight"]["median"] < 1
    # Every prompt of auto was decided by a stage of the router; the ones in flight at the end may not be counted yet.
    assert sum(found["stages"].values()) > 0
    assert set(found["stages"]) <= {"static", "transformer"}
    assert "moe-gateway, auto" in capsys.readouterr().out


def test_without_wrk_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="apt-get install wrk"):
        main(["--ways", "straight"])


def test_without_a_rival_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ways, "RIVALS", tmp_path)
    with pytest.raises(NotUpError, match="make rivals"), ways.open_ways(["vllm-router"], tmp_path):
        pass


def test_a_way_that_loses_words_is_not_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with ways.open_ways(["straight"], tmp_path) as (straight,):
        straight.check("stream")
        monkeypatch.setattr(ways, "CHUNKS", CHUNKS + 1)
        with pytest.raises(ways.BadAnswerError, match="straight does not carry a whole answer"):
            straight.check("stream")


def test_a_server_that_ends_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('no such model'); raise SystemExit(3)"]
    with pytest.raises(NotUpError, match="no such model"), serving(command, free_port(), "/", tmp_path / "log"):
        pass


def test_a_server_and_its_children_are_weighed_and_stopped(tmp_path: Path) -> None:
    port = free_port()
    child = "import time; b = b'x' * 60_000_000; time.sleep(600)"
    code = f"import subprocess, sys, http.server as h; subprocess.Popen([sys.executable, '-c', {child!r}]); "
    code += f"h.HTTPServer(('127.0.0.1', {port}), h.SimpleHTTPRequestHandler).serve_forever()"
    with serving([sys.executable, "-c", code], port, "/", tmp_path / "log") as server:
        (spawned,) = psutil.Process(server.process.pid).children()
        until = time.monotonic() + 60
        while server.use().resident < 70 and time.monotonic() < until:
            time.sleep(0.05)
        assert server.use().resident > 70  # more than the parent alone
    gone, _ = psutil.wait_procs([spawned], 30)
    assert gone == [spawned]


@needs_wrk
def test_a_way_that_answers_nothing_is_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "LONGER", (1,))
    monkeypatch.setattr(ways.Way, "check", lambda way, kind: None)
    with socket.create_server(("127.0.0.1", 0)) as silent, ways.open_ways(["straight"], tmp_path) as (straight,):
        deaf = replace(straight, server=replace(straight.server, url=f"http://127.0.0.1:{silent.getsockname()[1]}"))
        bodies, plan = Bodies(tmp_path, ["x"]), measuring.Plan(["json"], [1], 1, 1)
        with pytest.raises(load.NoLoadError, match="straight gave not one answer within 1 s"):
            measuring.run([deaf], plan, bodies)
