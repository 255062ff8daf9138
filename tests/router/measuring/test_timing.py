from __future__ import annotations

import os
import threading
from contextlib import suppress

import pytest

from router.decision import Query
from router.measuring.timing import is_typical, latency, one_core, percentiles
from tests.fakes.classifiers import worded_router
from tests.fakes.fleets import fleet

FILE = fleet({"coder": {"domains": ["code"]}, "sage": {"domains": ["general"]}})

ALLOWED = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()  # before any test


def silent(step: str, done: int, total: int) -> None:
    pass


def test_each_stage_is_timed_by_itself_and_by_the_length_of_the_prompt() -> None:
    queries = [Query("code"), Query("code?"), Query("general? " + "x " * 50), Query("general " + "x" * 400)]
    routers = []

    def fresh() -> object:
        routers.append(worded_router(FILE))
        return routers[-1]

    found = latency(fresh, queries, silent)  # type: ignore[arg-type]
    rows = {name: figures["rows"] for name, figures in found.items() if isinstance(figures, dict)}
    assert rows == {"all": 4, "typical": 1, "static": 2, "transformer": 2}
    assert found["throughput"] > 0
    assert all(found["all"][p] > 0 for p in ("p50_ms", "p90_ms", "p99_ms"))
    assert found["all"]["p50_ms"] <= found["all"]["p99_ms"]
    assert (
        len(set(map(id, routers))) == len(routers) >= 3
    )  # warmed up, one at a time, many at once: nobody remembers a text


@pytest.mark.parametrize(
    ("text", "typical"),
    [("word " * 39, False), ("word " * 40, True), ("word, " * 32, True), ("word, " * 33, False), ("x" * 240, False)],
)
def test_typical_is_what_has_so_many_words_and_signs(text: str, typical: bool) -> None:
    assert is_typical(text) is typical


def test_nothing_to_time_is_no_error() -> None:
    assert latency(lambda: worded_router(FILE), [], silent)["throughput"] is None


def test_percentiles_are_in_milliseconds() -> None:
    assert percentiles([i / 1000 for i in range(101)]) == pytest.approx(
        {"rows": 101, "p50_ms": 50, "p90_ms": 90, "p99_ms": 99}
    )
    assert percentiles([]) == {}


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system does not say which cores a thread may use"
)
def test_every_thread_runs_on_one_core_meanwhile_and_is_free_again_afterwards() -> None:
    started, done = threading.Event(), threading.Event()

    def wait() -> None:
        started.set()
        done.wait()

    other = threading.Thread(target=wait, daemon=True)
    other.start()
    started.wait()
    with suppress(ZeroDivisionError), one_core() as cores:
        assert cores == 1
        assert [len(os.sched_getaffinity(thread)) for thread in (0, other.native_id or 0)] == [1, 1]
        raise ZeroDivisionError
    assert [os.sched_getaffinity(thread) for thread in (0, other.native_id or 0)] == [ALLOWED, ALLOWED]
    done.set()
    other.join()
