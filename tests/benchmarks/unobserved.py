"""The moe-gateway command without metrics, which have no switch, to measure what they cost:

python -m tests.benchmarks.unobserved serve …
"""

from __future__ import annotations

from gateway import cli
from gateway.exchange import Exchange
from gateway.metrics import Metrics


def count_nothing(metrics: Metrics, exchange: Exchange) -> None:
    """In place of Metrics.observe."""


if __name__ == "__main__":
    Metrics.observe = count_nothing  # type: ignore[method-assign, assignment]
    cli.main()
