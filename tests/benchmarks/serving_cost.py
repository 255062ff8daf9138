"""What a method costs where it is served: microseconds a prompt and resident memory, in a process of its own, on one core.

python -m tests.benchmarks.serving_cost METHOD.pickle < prompts.json
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil

from tests.benchmarks.models import Classifier, Vectors

PASSES = 3
WARM_UP = 5
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
MEGABYTE = 2**20

Ask = Callable[[str], object]


class Served(Protocol):
    """Something to be asked; it can be pickled."""

    def opened(self) -> Callable[[], Ask]:
        """Load what is needed. Each call of what it gives is one that remembers no text."""


@dataclass(frozen=True)
class ServedClassifier:
    """A classifier with the folders of its encoders."""

    classifier: Classifier
    folders: Mapping[str, Path]

    def opened(self) -> Callable[[], Ask]:
        from tests.benchmarks.tables import opened

        encoders = {source: opened(folder) for source, folder in self.folders.items()}

        def read(source: str, texts: Sequence[str]) -> Vectors:
            return encoders[source].encode(texts)

        return lambda: lambda text: self.classifier.probabilities([text], read)


@dataclass(frozen=True)
class ServedRouter:
    """The packaged router whose cheap stage is sure from `sure` on, with the experts of `config`: text to decision."""

    sure: float
    config: Path

    def opened(self) -> Callable[[], Ask]:
        from router.decision import Query
        from tests.benchmarks.routed import experts, packaged, router_at

        artifact, file = packaged(), experts(self.config)

        def fresh() -> Ask:
            router = router_at(self.sure, artifact, file)
            return lambda text: router.quick(Query(text)) or router.decide(Query(text))

        return fresh


def keep(served: Served, path: Path) -> None:
    """Write `served` into a file, for `cost`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(served))


def cost(kept: Path, prompts: Sequence[str]) -> dict[str, float]:
    """`mean_us`, `p50_us`, `p99_us` over the prompts and `resident_mb` of what is kept there, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.serving_cost", str(kept)],
        input=json.dumps(prompts),
        capture_output=True,
        text=True,
        env=os.environ | ONE_THREAD | {"TOKENIZERS_PARALLELISM": "false"},
    )
    if done.returncode:
        raise RuntimeError(f"the process that was to be timed failed:\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def timed(fresh: Callable[[], Ask], prompts: Sequence[str]) -> dict[str, float]:
    """Of each prompt the quickest of PASSES askings counts: the machine is shared, and what is slow once is the others' doing."""
    best = np.full(len(prompts), np.inf)
    for _ in range(PASSES):
        ask = fresh()
        for prompt in prompts[:WARM_UP]:
            fresh()(prompt)
        for i, prompt in enumerate(prompts):
            started = time.perf_counter()
            ask(prompt)
            best[i] = min(best[i], time.perf_counter() - started)
    p50, p99 = np.percentile(best * 1e6, (50, 99))
    return {"mean_us": float(best.mean() * 1e6), "p50_us": float(p50), "p99_us": float(p99)}


def main() -> None:
    before = psutil.Process().memory_info().rss
    served: Any = pickle.loads(Path(sys.argv[1]).read_bytes())  # noqa: S301 - written by `keep`
    fresh, prompts = served.opened(), json.loads(sys.stdin.read())
    for prompt in prompts[:WARM_UP]:
        fresh()(prompt)
    resident = psutil.Process().memory_info().rss - before
    from router.measuring.timing import one_core  # it brings half of the router along, which is not the method's memory

    with one_core():
        found = timed(fresh, prompts)
    print(json.dumps(found | {"resident_mb": resident / MEGABYTE}))


if __name__ == "__main__":
    main()
