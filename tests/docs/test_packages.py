"""The packages of docs/extend/: built and installed as their readers would, then used by one gateway, all of them at once.

The pages hold them file by file, and a test compares; here is where they are kept.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from router.decision import Query
from router.policy import POLICIES
from tests.docs.packages.acme_policy.acme_policy import careful
from tests.docs.packages.acme_upstream.server import Generate
from tests.docs.pages import DOCS
from tests.fakes.encoders import told_router
from tests.fakes.fleets import fleet
from tests.fakes.upstream import PATIENCE
from tests.integration.conftest import Command, metric, serve

PACKAGES = Path(__file__).parent / "packages"
NAMES = sorted(path.name for path in PACKAGES.iterdir() if (path / "pyproject.toml").is_file())
EXPERTS = """version: 1
router: {{encoder: acme-words, static: "", head: acme-centroid, calibrator: acme-scale, confidence_floor: 0}}
experts:
  general: {{model: m-general, domains: [general], upstream: {{custom: acme-generate, base_url: {url}}}}}
  coder:
    model: m-code
    domains: {{code: 0.99, general: 0.6}}
    upstream: {{custom: acme-generate, base_url: {url}, api_key: "${{ACME_KEY}}"}}
    price: {{input: 1, output: 2}}
"""
BUILD = """
import os, sys
from setuptools import build_meta
_, wheels, *sources = sys.argv
for source in sources:
    os.chdir(source)
    build_meta.build_wheel(wheels)
"""
CODE = "Fix this TypeError in my python function: def f(x): return x+1"


@contextmanager
def generate_server() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Generate)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which pip has put every package. They are built in a copy, since building leaves files behind, and by one
    process, since pip starts three for each."""
    folder = tmp_path_factory.mktemp("site")
    sources = [str(shutil.copytree(PACKAGES / name, folder / "sources" / name)) for name in NAMES]
    (folder / "wheels").mkdir()
    done(sys.executable, "-c", BUILD, str(folder / "wheels"), *sources)
    options = ["--no-deps", "--no-index", "--disable-pip-version-check", "--target", str(folder / "installed")]
    done(sys.executable, "-m", "pip", "install", *options, *map(str, (folder / "wheels").iterdir()))
    return folder / "installed"


def done(*command: str) -> None:
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


@pytest.fixture(scope="module")
def bill(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bill") / "bill.csv"


@pytest.fixture(scope="module")
def gateway(site: Path, bill: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    folder = tmp_path_factory.mktemp("gateway")
    environment = {
        "PYTHONPATH": os.pathsep.join((str(site), *filter(None, (os.environ.get("PYTHONPATH"),)))),
        "ACME_BILL": str(bill),
        "ACME_KEY": "k-1",
    }
    with generate_server() as url:
        (folder / "experts.yaml").write_text(EXPERTS.format(url=url), "utf-8")
        options = (
            "--config",
            str(folder / "experts.yaml"),
            "--state",
            str(folder / "state"),
            "--observer",
            "acme-bill",
        )
        with serve(*options, environment=environment) as command:
            yield command


def ask(gateway: Command, model: str, prompt: str, stream: bool = False, **headers: str) -> httpx.Response:
    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": prompt}]}
    return httpx.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=60)


def test_the_router_is_made_of_the_packages_parts(gateway: Command) -> None:
    text = httpx.get(f"{gateway.url}/metrics", timeout=PATIENCE).text
    assert metric(text, "moe_router_info", encoder="acme-words") == 1
    decided = httpx.post(f"{gateway.url}/v1/route", json={"input": CODE}, timeout=PATIENCE).json()
    assert (decided["domain"], decided["stage"]) == ("code", "transformer")


@pytest.mark.parametrize("stream", [False, True])
def test_the_upstream_of_a_package_answers_in_one_piece_and_as_a_stream(gateway: Command, stream: bool) -> None:
    answer = ask(gateway, "coder", "Four words are these.", stream)
    assert answer.status_code == 200
    assert "I read 4 words." in answer.text
    assert answer.headers["x-moe-expert"] == "coder"
    assert answer.text.rstrip().endswith("[DONE]") is stream


def test_what_a_stream_came_to_is_told_by_its_receipt(gateway: Command) -> None:
    answer = ask(gateway, "coder", "Four words are these.", stream=True)
    receipt = httpx.get(f"{gateway.url}/v1/receipts/{answer.headers['x-request-id']}", timeout=PATIENCE).json()
    assert (receipt["usage"]["input"], receipt["usage"]["output"]) == (4, 4)
    assert receipt["cost"]["usd"] == pytest.approx(4e-6 + 8e-6)


def test_the_policy_of_a_package_is_a_virtual_model(gateway: Command) -> None:
    """A router of words is never very sure, and with a confidence_floor of 0 that is nothing to auto."""
    careful, usual = ask(gateway, "auto:acme-careful", CODE), ask(gateway, "auto", CODE)
    assert (careful.headers["x-moe-expert"], careful.headers["x-moe-reason"]) == ("general", "low_confidence")
    assert (usual.headers["x-moe-expert"], usual.headers["x-moe-reason"]) == ("coder", "best")


@pytest.mark.parametrize(
    ("told", "chosen"),
    [("code=0.81 general=0.19", ("coder", "best")), ("code=0.79 general=0.21", ("general", "low_confidence"))],
)
def test_that_policy_wants_to_be_four_fifths_sure(told: str, chosen: tuple[str, str]) -> None:
    file = fleet({"coder": {"domains": {"code": 0.9}}, "general": {"domains": {"general": 0.8}}})
    with POLICIES.lending("auto:acme-careful", careful):
        decision = told_router(file).decide(Query(told, requested_model="auto:acme-careful"))
    assert (decision.expert, decision.reason) == chosen


def test_the_observer_of_a_package_is_told_of_every_answer(gateway: Command, bill: Path) -> None:
    asked = ask(gateway, "coder", "Four words are these.")
    assert asked.status_code == 200
    until = time.monotonic() + PATIENCE
    while True:
        text = httpx.get(f"{gateway.url}/metrics", timeout=PATIENCE).text
        told = [metric(text, "moe_observer_receipts_total", outcome=outcome) for outcome in ("ok", "failed", "dropped")]
        if told == [metric(text, "moe_requests_total"), 0, 0] or time.monotonic() > until:
            break
        time.sleep(0.02)
    *_, last = csv.reader(bill.read_text("utf-8").splitlines())
    assert last[1:] == ["anonymous", "coder", "4", "4", "1.2e-05"]
    assert told[0] > 0


@pytest.mark.parametrize("name", NAMES)
def test_the_page_holds_the_package_as_it_is(name: str) -> None:
    page = (DOCS / "extend" / f"{name.removeprefix('acme_')}.md").read_text("utf-8")
    shown = dict(re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```$', page, re.DOTALL | re.MULTILINE))
    files = {f"{name}/{path.name}": path.read_text("utf-8") for path in (PACKAGES / name).iterdir() if path.is_file()}
    assert {title: text for title, text in shown.items() if title.startswith(f"{name}/")} == files
