"""What is counted of money: what answers cost, and what the same tokens would have cost elsewhere."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

from gateway.children import Children
from gateway.exchange import Exchange, Outcome
from router.experts import ExpertsFile
from router.prices import Price

NONE = "none"  # the label where nothing was classified


class CostMetrics:
    """`watch` says which price savings are counted against."""

    def __init__(self, registry: CollectorRegistry, of: Children) -> None:
        self._of = of
        self._baseline: tuple[str, Price] | None = None
        self.cost = Counter("moe_cost_usd", "Token prices of answers, in USD.", ("expert", "domain"), registry=registry)
        self.baseline_cost = Counter(
            "moe_baseline_cost_usd",
            "What the same tokens would have cost there. Stand-ins are left out.",
            ("baseline",),
            registry=registry,
        )
        self.unpriced = Counter(
            "moe_unpriced_requests",
            "Answers of unknown cost: no price in experts.yaml, or no usage told.",
            ("expert",),
            registry=registry,
        )

    def watch(self, baseline: tuple[str, Price] | None) -> None:
        """Compare with this from now on."""
        self._baseline = baseline

    def observe(self, exchange: Exchange) -> None:
        """Count one finished exchange."""
        usage, cost = exchange.usage, exchange.cost
        if cost is None:
            # A client that left before the last chunk, which tells the usage, had something that somebody computed.
            said = exchange.outcome is Outcome.OK or exchange.first_token is not None
            if exchange.expert_id is not None and (usage is not None or (exchange.attempts and said)):
                self._of(self.unpriced, exchange.expert_id).inc()
            return
        if usage is None or exchange.expert is None or exchange.expert_id is None:
            return
        decision = exchange.decision
        domain = decision.scores.domain if decision and decision.scores else NONE
        self._of(self.cost, exchange.expert_id, domain).inc(cost)
        if self._baseline and not exchange.expert.stand_in:
            name, price = self._baseline
            self._of(self.baseline_cost, name).inc(usage.cost(price))


def baseline_of(file: ExpertsFile, price: Price | None) -> tuple[str, Price] | None:
    """The baseline's name and price, None where the file names none or its price is not known."""
    return (file.baseline_name, price) if file.baseline_name and price else None
