from __future__ import annotations

from gateway.commands.timed import request_latency
from router.routing import Router
from tests.fakes.classifiers import Worded
from tests.fakes.encoders import spoken_artifact
from tests.fakes.fleets import fleet

FILE = fleet({"coder": {"domains": ["code"]}, "sage": {"domains": ["general"]}})


def test_every_text_is_asked_once_as_a_request_and_timed() -> None:
    classifier = Worded(FILE.domain_names)
    router = Router(FILE, spoken_artifact(FILE.domain_names), classifier)
    texts = ["code?", "general", "code?" + " x" * 50, "half \ud800 of it"]
    steps: list[tuple[str, int, int]] = []
    found = request_latency(router, texts, lambda *step: steps.append(step))
    assert {name: figures["rows"] for name, figures in found.items()} == {"request": 4, "typical_request": 1}
    assert all(found["request"][p] > 0 for p in ("p50_ms", "p90_ms", "p99_ms"))
    assert steps[-1] == ("timing requests", 4, 4)
    # What the cheap stage is not sure of goes through the batcher.
    assert set(classifier.seen) == {"code?", texts[2], "half ? of it"}


def test_nothing_to_time_is_no_error() -> None:
    router = Router(FILE, spoken_artifact(FILE.domain_names), Worded(FILE.domain_names))
    assert request_latency(router, [], lambda *step: None) == {}
