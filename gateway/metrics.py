"""Prometheus metrics, filled from finished exchanges. Every label value comes from experts.yaml or a fixed set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from gateway import __version__, metricfiles
from gateway.children import Children
from gateway.costmetrics import NONE, CostMetrics
from gateway.exchange import Exchange, Outcome, Phase
from gateway.replica import Replica, State
from gateway.workermetrics import WorkerMetrics
from router.routing import Router

TTFT = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
TPOT = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
DURATION = (*(0.01 * 2**i for i in range(16)), 600.0)
OVERHEAD = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
ROUTING = (0.00001, 0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)
CONFIDENCE = tuple(i / 20 for i in range(1, 21))
GaugeMode = Literal["livemax", "livesum", "mostrecent"]
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Mismatched(Protocol):
    """Who knows whether the experts' servers are as experts.yaml says."""

    def mismatched(self) -> Mapping[str, bool]: ...


class _Replicas:
    """Whether each replica may be asked, and in which state it is, told when Prometheus asks.

    Where several processes judge, a replica is up that one of them may ask, and has every state that one of them sees.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._replicas: Sequence[Replica] = ()
        self._up = _gauge("moe_replica_up", "Whether the replica may be asked.", ("expert", "replica"), registry)
        self._states = _gauge(
            "moe_replica_state", "1 for the state that the replica is in.", ("expert", "replica", "state"), registry
        )

    def watch(self, replicas: Sequence[Replica]) -> None:
        """From now on these, and none else."""
        metricfiles.clear(self._up)
        metricfiles.clear(self._states)
        self._replicas = replicas
        self.refresh()

    def refresh(self) -> None:
        for replica in self._replicas:
            expert, current = replica.name.rpartition("-")[0], replica.state
            self._up.labels(expert, replica.name).set(replica.available)
            for state in State:
                self._states.labels(expert, replica.name, state).set(state is current)


def _gauge(
    name: str, text: str, labels: Sequence[str], registry: CollectorRegistry, several: GaugeMode = "livemax"
) -> Gauge:
    """`several` says what the values of living processes come to where there are several."""
    return Gauge(name, text, labels, registry=registry, multiprocess_mode=several)


class Metrics:
    """One registry a gateway."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._of = Children()
        r = self.registry
        self.requests = Counter(
            "moe_requests", "Requests finished.", ("endpoint", "expert", "domain", "code"), registry=r
        )
        self.duration = Histogram(
            "moe_request_duration_seconds",
            "From first byte to last.",
            ("endpoint", "expert"),
            buckets=DURATION,
            registry=r,
        )
        self.first_token = Histogram(
            "moe_time_to_first_token_seconds",
            "TTFT of streams, as the client saw it.",
            ("expert",),
            buckets=TTFT,
            registry=r,
        )
        self.per_token = Histogram(
            "moe_time_per_output_token_seconds",
            "TPOT of streams, after the first token.",
            ("expert",),
            buckets=TPOT,
            registry=r,
        )
        self.overhead = Histogram(
            "moe_gateway_overhead_seconds",
            "Time spent in the gateway itself.",
            ("endpoint",),
            buckets=OVERHEAD,
            registry=r,
        )
        self.tokens = Counter("moe_tokens", "Tokens by the expert's own count.", ("expert", "kind"), registry=r)
        self.decisions = Counter(
            "moe_routing_decisions", "Decisions of the router.", ("expert", "domain", "reason", "stage"), registry=r
        )
        self.routing = Histogram(
            "moe_routing_duration_seconds", "Time to decide.", ("stage",), buckets=ROUTING, registry=r
        )
        self.confidence = Histogram(
            "moe_routing_confidence",
            "Probability of the most probable domain.",
            ("domain",),
            buckets=CONFIDENCE,
            registry=r,
        )
        self.switches = Counter(
            "moe_conversation_switches",
            "Turns that went to another expert than the turn before.",
            ("cause",),
            registry=r,
        )
        self.attempts = Counter(
            "moe_upstream_attempts", "Tries at a replica.", ("expert", "replica", "outcome"), registry=r
        )
        self.fallbacks = Counter(
            "moe_fallbacks", "Moves from one expert to the next.", ("from_expert", "to_expert", "reason"), registry=r
        )
        self.in_flight = _gauge("moe_requests_in_flight", "Requests that an expert holds.", ("expert",), r, "livesum")
        self.queued = _gauge("moe_requests_queued", "Requests that wait for an expert.", ("expert",), r, "livesum")
        self.queue = Histogram(
            "moe_queue_seconds", "Time in an expert's queue, of those that had to wait.", ("expert",), buckets=DURATION,
            registry=r,
        )  # fmt: skip
        self.queue_refused = Counter(
            "moe_queue_refused", "Requests that got no place in time.", ("expert", "reason"), registry=r
        )
        self.ejections = Counter(
            "moe_replica_ejections", "How often a replica was taken out.", ("expert", "replica", "cause"), registry=r
        )
        self.disconnects = Counter(
            "moe_client_disconnects",
            "Clients that left before their answer was complete.",
            ("endpoint", "phase"),
            registry=r,
        )
        self.stream_errors = Counter(
            "moe_stream_errors", "Streams that failed after content.", ("expert", "kind"), registry=r
        )
        self.loaded = _gauge(
            "moe_config_last_success_timestamp_seconds", "When experts.yaml was last loaded.", (), r, "mostrecent"
        )
        self.reloaded = _gauge(
            "moe_config_last_reload_successful",
            "Whether the last experts.yaml that was found was taken.",
            (),
            r,
            "mostrecent",
        )
        self.config_info = _gauge("moe_config_info", "The experts.yaml that runs.", ("hash",), r)
        self.router_info = _gauge("moe_router_info", "The router that runs.", ("artifact", "encoder"), r)
        _gauge("moe_build_info", "The version that runs.", ("version",), r).labels(__version__).set(1)
        self.mismatch = _gauge(
            "moe_expert_mismatch", "Whether a server of the expert's is not as experts.yaml says.", ("expert",), r
        )
        self._served: Mismatched | None = None
        self.reloads = Counter("moe_config_reloads", "Tries to load another experts.yaml.", ("outcome",), registry=r)
        self._replicas = _Replicas(r)
        self.workers = WorkerMetrics(r)
        self.costs = CostMetrics(r, self._of)

    def describe(
        self,
        router: Router,
        replicas: Sequence[Replica],
        expert_ids: Sequence[str],
        served: Mismatched | None = None,
    ) -> None:
        """Say what runs from now on."""
        self._served = served
        self.loaded.set_to_current_time()
        self.reloaded.set(1)
        metricfiles.clear(self.mismatch)
        metricfiles.clear(self.config_info)
        metricfiles.clear(self.router_info)
        self.config_info.labels(router.file.digest).set(1)
        self.router_info.labels(router.artifact.name, router.artifact.manifest.encoder).set(1)
        self._replicas.watch(replicas)
        for expert in expert_ids:
            self.in_flight.labels(expert).inc(0)
            self.queued.labels(expert).inc(0)

    def hold(self, expert: str, count: int) -> None:
        self.in_flight.labels(expert).set(count)

    def on_queue(self, expert: str, length: int) -> None:
        self.queued.labels(expert).set(length)

    def on_wait(self, expert: str, seconds: float) -> None:
        self.queue.labels(expert).observe(seconds)

    def on_refused(self, expert: str, reason: str) -> None:
        self.queue_refused.labels(expert, reason).inc()

    def on_eject(self, expert: str, replica: str, cause: str) -> None:
        self.ejections.labels(expert, replica, cause).inc()
        self.refresh()

    def refresh(self) -> None:
        """Look at what is not told to us when it changes: for processes that are asked for our metrics in our place."""
        self._replicas.refresh()
        self.workers.refresh()
        for expert, mismatched in self._served.mismatched().items() if self._served else ():
            self.mismatch.labels(expert).set(mismatched)

    def exposition(self) -> bytes:
        """Everything that this process counts, or all of several do, in Prometheus' text format."""
        self.refresh()
        return metricfiles.exposition() if metricfiles.shared() else generate_latest(self.registry)

    def observe(self, exchange: Exchange) -> None:
        """Count one finished exchange."""
        expert = exchange.expert_id or NONE
        decision = exchange.decision
        domain = decision.scores.domain if decision and decision.scores else NONE
        self._of(self.requests, exchange.endpoint, expert, domain, str(exchange.status)).inc()
        self._of(self.duration, exchange.endpoint, expert).observe(exchange.seconds)
        self._of(self.overhead, exchange.endpoint).observe(max(0.0, exchange.seconds - exchange.waited))
        self._observe_decision(exchange)
        self._observe_attempts(exchange)
        self._observe_usage(exchange, expert)
        self.costs.observe(exchange)
        if exchange.outcome is Outcome.CANCELLED:
            self._of(self.disconnects, exchange.endpoint, exchange.phase).inc()
        elif exchange.phase is Phase.STREAMING and exchange.first_token and exchange.outcome is not Outcome.OK:
            self._of(self.stream_errors, expert, exchange.outcome or NONE).inc()

    def _observe_decision(self, exchange: Exchange) -> None:
        decision = exchange.decision
        if decision is None:
            return
        scores = decision.scores
        domain = scores.domain if scores else NONE
        self._of(self.decisions, decision.expert, domain, decision.reason, decision.stage).inc()
        self._of(self.routing, decision.stage).observe(decision.seconds)
        if decision.switched:
            self._of(self.switches, decision.switched).inc()
        if scores and decision.stage != "none":
            self._of(self.confidence, scores.domain).observe(scores.confidence)

    def _observe_attempts(self, exchange: Exchange) -> None:
        for attempt in exchange.attempts:
            self._of(self.attempts, attempt.expert, attempt.replica, attempt.outcome or NONE).inc()
        if exchange.passed_over is not None and exchange.attempts:
            expert, why = exchange.passed_over
            self._of(self.fallbacks, expert, exchange.attempts[0].expert, why).inc()
        for before, after in zip(exchange.attempts, exchange.attempts[1:], strict=False):
            if before.expert != after.expert:
                self._of(self.fallbacks, before.expert, after.expert, before.outcome or NONE).inc()

    def _observe_usage(self, exchange: Exchange, expert: str) -> None:
        usage = exchange.usage
        if exchange.stream and exchange.first_token is not None and exchange.last_token is not None:
            self._of(self.first_token, expert).observe(exchange.first_token - exchange.started)
            if usage and usage.output > 1:
                spacing = (exchange.last_token - exchange.first_token) / (usage.output - 1)
                self._of(self.per_token, expert).observe(spacing)
        if usage is None or exchange.expert is None:
            return
        for kind in ("input", "cached_input", "output", "reasoning"):
            self._of(self.tokens, expert, kind).inc(getattr(usage, kind))
