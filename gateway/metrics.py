"""Prometheus metrics, filled from finished exchanges. Every label value comes from experts.yaml or a fixed set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram

from gateway import __version__, metricfiles
from gateway.children import Children
from gateway.costmetrics import CostMetrics
from gateway.exchange import Exchange, Outcome, Phase
from gateway.exposition import NONE, Exposition, Roll
from gateway.families import Families
from gateway.ledger.metrics import LedgerMetrics
from gateway.processmetrics import ProcessMetrics
from gateway.replica import Replica, State
from gateway.workermetrics import WorkerMetrics
from router.decision import Decision, Stage
from router.routing import Router

# The codes that INTERFACE.md promises, and 499 for a client that left. A server may answer with any number.
CODES = {code: str(code) for code in (200, *range(400, 406), 408, 409, 413, 415, 422, 429, 499, *range(500, 505))}
LIMITED = ("upstream", "queue", "explanations")  # who tells a request to come back later
Labels = tuple[str, str, str, str]
NO_STAGE: Stage = "none"
KINDS = ("input", "cached_input", "output", "reasoning")


class Mismatched(Protocol):
    """Who knows whether the experts' servers are as experts.yaml says."""

    def mismatched(self) -> Mapping[str, bool]: ...


class Metrics(Families):
    """One registry a gateway. `refresh` and all that counts are for the thread that serves, `exposition` is for any."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        super().__init__(self.registry)
        self._of, self._roll = Children(), Roll()
        self._exposition = Exposition(self.registry, self._roll)
        # What every request needs is looked up once for several families.
        self._of_request: dict[Labels, tuple[Counter, Histogram, Histogram]] = {}
        self._of_decision: dict[Labels, tuple[Counter, Histogram]] = {}
        self._replicas: Sequence[Replica] = ()
        self._served: Mismatched | None = None
        self.workers = WorkerMetrics(self.registry)
        self.costs = CostMetrics(self.registry, self._of)
        self.process = ProcessMetrics(self.registry)
        self.ledger = LedgerMetrics(self.registry)
        self.build_info.labels(__version__).set(1)
        # A rate of Prometheus' misses the first of a series that does not begin at 0.
        for kind in LIMITED:
            self.rate_limited.labels(kind)
        for outcome in ("ok", "failed"):
            self.reloads.labels(outcome)

    def describe(
        self,
        router: Router,
        replicas: Sequence[Replica],
        expert_ids: Sequence[str],
        served: Mismatched | None = None,
    ) -> None:
        """Say what runs from now on. What `router` chose is told of until it is retired."""
        domains = router.file.domain_names
        self._roll.enter(router, {"expert": expert_ids, "replica": [r.name for r in replicas], "domain": domains})
        self._replicas, self._served = replicas, served
        self.loaded.set_to_current_time()
        self.reloaded.set(1)
        for gauge in (self.mismatch, self.config_info, self.router_info, self.replica_up, self.replica_state):
            metricfiles.clear(gauge)
        self.config_info.labels(router.file.digest).set(1)
        self.router_info.labels(router.artifact.name, router.artifact.manifest.encoder).set(1)
        for expert in expert_ids:
            self._of(self.in_flight, expert).inc(0)
            self._of(self.queued, expert).inc(0)
            for kind in KINDS:
                self._of(self.tokens, expert, kind)
        self.refresh()

    def reloading(self, refused: bool, outcome: str | None = None) -> None:
        """Whether the newest experts.yaml was refused; and what came of a try, where one is to be counted here."""
        self.reloaded.set(not refused)
        if outcome is not None:
            self.reloads.labels(outcome).inc()

    def retire(self, router: Router) -> None:
        """Nothing moves any more of what it chose: the series of what it alone knew are told no longer."""
        self._roll.leave(router)

    def hold(self, expert: str, count: int) -> None:
        self._of(self.in_flight, expert).set(count)

    def on_queue(self, expert: str, length: int) -> None:
        self._of(self.queued, expert).set(length)

    def on_wait(self, expert: str, seconds: float) -> None:
        self._of(self.queue, expert).observe(seconds)

    def on_refused(self, expert: str, reason: str) -> None:
        self._of(self.queue_refused, expert, reason).inc()
        if reason in ("full", "expired"):
            self._of(self.rate_limited, "queue").inc()

    def on_eject(self, expert: str, replica: str, cause: str) -> None:
        self._of(self.ejections, expert, replica, cause).inc()
        self.refresh()

    def refresh(self) -> None:
        """Look at what is not told to us when it changes: for processes that are asked for our metrics in our place."""
        for replica in self._replicas:
            expert, current = replica.name.rpartition("-")[0], replica.state
            self.replica_up.labels(expert, replica.name).set(replica.available)
            for state in State:
                self.replica_state.labels(expert, replica.name, state).set(state is current)
        for expert, mismatched in self._served.mismatched().items() if self._served else ():
            self.mismatch.labels(expert).set(mismatched)
        self.costs.refresh()
        self.workers.refresh()
        self.ledger.refresh()
        self.process.refresh()

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """Everything that this process counts, or all of several do, and its content type, as an Accept header wants it."""
        return self._exposition.text(accept)

    def observe(self, exchange: Exchange) -> None:
        """Count one finished exchange."""
        endpoint, expert, decision = exchange.endpoint, exchange.expert_id or NONE, exchange.decision
        domain = decision.scores.domain if decision and decision.scores else NONE
        seconds, trace = exchange.seconds, exchange.trace_id
        # What leads from a histogram to a trace. Of several processes none is kept: it would be that of one of them alone.
        exemplar = {"trace_id": trace} if trace else None
        key = endpoint, expert, domain, CODES.get(exchange.status) or _class(exchange.status)
        requests, duration, overhead = self._of_request.get(key) or self._new_request(key)
        requests.inc()
        duration.observe(seconds, exemplar)
        overhead.observe(max(0.0, seconds - exchange.waited))
        if decision is not None:
            self._observe_decision(decision, domain)
        self._observe_attempts(exchange)
        if exchange.first_token is not None or exchange.usage is not None:
            self._observe_answer(exchange, expert, exemplar)
        self.costs.observe(exchange)
        if exchange.outcome is not Outcome.OK:
            self._observe_failure(exchange, expert)

    def _new_request(self, key: Labels) -> tuple[Counter, Histogram, Histogram]:
        endpoint, expert, *_ = key
        series = self.requests.labels(*key), self.duration.labels(endpoint, expert), self.overhead.labels(endpoint)
        self._of_request[key] = series
        return series

    def _new_decision(self, key: Labels) -> tuple[Counter, Histogram]:
        series = self._of_decision[key] = self.decisions.labels(*key), self.routing.labels(key[-1])
        return series

    def _observe_decision(self, decision: Decision, domain: str) -> None:
        scores = decision.scores
        stage = scores.stage if scores else NO_STAGE
        key = decision.expert, domain, decision.reason, stage
        decisions, routing = self._of_decision.get(key) or self._new_decision(key)
        decisions.inc()
        routing.observe(decision.seconds)
        if scores and stage != NO_STAGE:
            self._of(self.confidence, domain).observe(scores.by_domain[domain])
        if decision.previous is not None:
            self.turns.inc()
        if decision.switched:
            self._of(self.switches, decision.switched).inc()

    def _observe_attempts(self, exchange: Exchange) -> None:
        attempts = exchange.attempts
        for attempt in attempts:
            self._of(self.attempts, attempt.expert, attempt.replica, attempt.outcome or NONE).inc()
        if exchange.passed_over is not None and attempts:
            expert, why = exchange.passed_over
            self._of(self.fallbacks, expert, attempts[0].expert, why).inc()
        for before, after in pairwise(attempts):
            if before.expert != after.expert:
                self._of(self.fallbacks, before.expert, after.expert, before.outcome or NONE).inc()

    def _observe_answer(self, exchange: Exchange, expert: str, exemplar: dict[str, str] | None) -> None:
        of, usage, first, last = self._of, exchange.usage, exchange.first_token, exchange.last_token
        if exchange.stream and first is not None and last is not None:
            of(self.first_token, expert).observe(first - exchange.started, exemplar)
            if usage and usage.output > 1:
                of(self.per_token, expert).observe((last - first) / (usage.output - 1))
        if usage is not None:
            for kind in KINDS:
                if count := getattr(usage, kind):
                    of(self.tokens, expert, kind).inc(count)

    def _observe_failure(self, exchange: Exchange, expert: str) -> None:
        of, outcome = self._of, exchange.outcome or NONE
        if outcome is Outcome.CANCELLED:
            of(self.disconnects, exchange.endpoint, exchange.phase).inc()
        elif exchange.phase is Phase.STREAMING and exchange.first_token:
            of(self.stream_errors, expert, outcome).inc()
        elif outcome is Outcome.REJECTED and exchange.status in (429, 503):
            of(self.rate_limited, "upstream").inc()
        elif exchange.error_code == "busy":
            of(self.rate_limited, "explanations").inc()


def _class(status: int) -> str:
    return f"{status // 100}xx"
