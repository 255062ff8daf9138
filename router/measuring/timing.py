"""How long a decision takes: one prompt at a time, and many at once, on one core."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from router.decision import Query
from router.routing import Router

CHUNK = 64
WARM_UP = 5
PERCENTILES = (50, 90, 99)
TYPICAL = (40, 64)  # words and signs: 40 to 80 tokens, which is what the target is set for
_PIECE = re.compile(r"\w+|[^\w\s]")

Progress = Callable[[str, int, int], None]


def latency(fresh: Callable[[], Router], queries: Sequence[Query], progress: Progress) -> dict[str, Any]:
    """Percentiles in milliseconds of each stage, of `all` and of `typical` prompts, one prompt at a time from one thread; and
    `throughput`, decisions a second when asked for 64 at once.

    `fresh` makes a router that remembers no text. Everything runs on one core where the system can be told so: `cores` says.
    """
    with one_core() as cores:
        router, seconds, stages = fresh(), [], []
        for query in queries[:WARM_UP]:
            fresh().decide(query)
        for done, query in enumerate(queries, 1):
            started = time.perf_counter()
            decision = router.quick(query) or router.decide(query)
            seconds.append(time.perf_counter() - started)
            stages.append(str(decision.stage))
            progress("timing", done, len(queries))
        throughput = _throughput(fresh(), queries)
    short = [is_typical(query.text) for query in queries]
    groups = {"all": [True] * len(queries), "typical": short}
    groups |= {stage: [s == stage for s in stages] for stage in sorted(set(stages))}
    timed = {
        name: percentiles([s for s, i in zip(seconds, inside, strict=True) if i]) for name, inside in groups.items()
    }
    return {"cores": cores, "throughput": throughput, **{name: figures for name, figures in timed.items() if figures}}


def is_typical(text: str) -> bool:
    """Whether a prompt has some 60 tokens. Characters would not tell: formulas have many tokens, and so have other languages."""
    return TYPICAL[0] <= len(_PIECE.findall(text)) <= TYPICAL[1]


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """`p50_ms`, `p90_ms`, `p99_ms` and how many there were; nothing where there were none."""
    if not seconds:
        return {}
    values = np.percentile(np.array(seconds) * 1000, PERCENTILES)
    return {"rows": len(seconds), **{f"p{p}_ms": float(value) for p, value in zip(PERCENTILES, values, strict=True)}}


def _throughput(router: Router, queries: Sequence[Query]) -> float | None:
    if not queries:
        return None
    started = time.perf_counter()
    for start in range(0, len(queries), CHUNK):
        router.decide_many(queries[start : start + CHUNK])
    return len(queries) / (time.perf_counter() - started)


@contextmanager
def one_core() -> Iterator[int]:
    """Keeps every thread of this process on one core meanwhile; yields on how many it runs. Elsewhere than on Linux: all."""
    if not hasattr(os, "sched_setaffinity"):
        yield os.cpu_count() or 1
        return
    allowed = os.sched_getaffinity(0)
    _pin({max(allowed)})
    try:
        yield 1
    finally:
        _pin(allowed)


def _pin(cores: set[int]) -> None:
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # it ended meanwhile
            os.sched_setaffinity(int(thread.name), cores)
