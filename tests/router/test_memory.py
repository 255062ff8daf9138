"""What the router takes of a process that had nothing before: memory is asserted, time never."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

MEGABYTE = 2**20
MOST_MB = 200
HEAVY = ("torch", "transformers", "sentence_transformers", "sklearn", "scipy", "pandas")

SCRIPT = f"""
import json, sys
import psutil

before = psutil.Process().memory_info().rss

from pathlib import Path
from router.artifact import PACKAGED
from router.dataset import OWN_SET, read_rows
from router.decision import Query
from router.experts import load_experts
from router.routing import Router

router = Router.load(load_experts(Path("experts.yaml")), PACKAGED)
texts = [row.text for row in read_rows(OWN_SET)][::7]
decisions = [router.decide(Query(text)) for text in texts]
router.decide_many([Query(text + " " + text) for text in texts])
print(json.dumps({{
    "grown_mb": (psutil.Process().memory_info().rss - before) / {MEGABYTE},
    "stages": sorted({{decision.stage for decision in decisions}}),
    "heavy": sorted(set({HEAVY!r}) & sys.modules.keys()),
}}))
"""


@pytest.fixture(scope="module")
def served() -> dict[str, Any]:
    """What a process of its own, that routes some prompts, says of itself."""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_router_adds_less_memory_than_it_may(served: dict[str, Any]) -> None:
    assert served["stages"] == ["static", "transformer"]
    assert 10 < served["grown_mb"] < MOST_MB


def test_nothing_that_only_training_needs_is_loaded(served: dict[str, Any]) -> None:
    assert served["heavy"] == []
