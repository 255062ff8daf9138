"""The metric families that are filled from requests and from experts.yaml, each declared once; docs/metrics.md has them all."""

from __future__ import annotations

from functools import partial
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

TTFT = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
TPOT = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
DURATION = (*(0.01 * 2**i for i in range(16)), 600.0)
OVERHEAD = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
ROUTING = (0.00001, 0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)
CONFIDENCE = tuple(i / 20 for i in range(1, 21))
# What the values of several living processes come to.
LARGEST: Literal["livemax"] = "livemax"
SUM: Literal["livesum"] = "livesum"
NEWEST: Literal["mostrecent"] = "mostrecent"


class Families:
    """Name, what it says, labels. A counter's name gets its `_total` from the library."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests(registry)
        self._routing(registry)
        self._upstreams(registry)
        self._configuration(registry)

    def _requests(self, registry: CollectorRegistry) -> None:
        counter, histogram = partial(Counter, registry=registry), partial(Histogram, registry=registry)
        self.requests = counter(
            "moe_requests",
            "Requests finished. A code that no client knows is told by its class, such as 2xx.",
            ("endpoint", "expert", "domain", "code"),
        )
        self.duration = histogram(
            "moe_request_duration_seconds", "From first byte to last.", ("endpoint", "expert"), buckets=DURATION
        )
        self.first_token = histogram(
            "moe_time_to_first_token_seconds", "TTFT of streams, as the client saw it.", ("expert",), buckets=TTFT
        )
        self.per_token = histogram(
            "moe_time_per_output_token_seconds", "TPOT of streams, after the first token.", ("expert",), buckets=TPOT
        )
        self.overhead = histogram(
            "moe_gateway_overhead_seconds",
            "Time spent in the gateway itself: all less what was waited for others.",
            ("endpoint",),
            buckets=OVERHEAD,
        )
        self.tokens = counter("moe_tokens", "Tokens by the expert's own count.", ("expert", "kind"))
        self.disconnects = counter(
            "moe_client_disconnects", "Clients that left before their answer was complete.", ("endpoint", "phase")
        )
        self.stream_errors = counter("moe_stream_errors", "Streams that failed after content.", ("expert", "kind"))
        self.rate_limited = counter(
            "moe_rate_limited",
            "Requests that were told to come back later: by every server that was asked, by a queue, by explanations.",
            ("kind",),
        )
        self.observed = counter(
            "moe_observer_receipts",
            "Finished requests that an observer of an installed package was told of, failed at, or was not told of.",
            ("observer", "outcome"),
        )

    def _routing(self, registry: CollectorRegistry) -> None:
        counter, histogram = partial(Counter, registry=registry), partial(Histogram, registry=registry)
        self.decisions = counter(
            "moe_routing_decisions", "Decisions of the router.", ("expert", "domain", "reason", "stage")
        )
        self.routing = histogram("moe_routing_duration_seconds", "Time to decide.", ("stage",), buckets=ROUTING)
        self.confidence = histogram(
            "moe_routing_confidence", "Probability of the most probable domain.", ("domain",), buckets=CONFIDENCE
        )
        self.turns = counter(
            "moe_conversation_turns", "Turns after a conversation's first whose expert could have been another."
        )
        self.switches = counter(
            "moe_conversation_switches", "Turns that went to another expert than the turn before.", ("cause",)
        )

    def _upstreams(self, registry: CollectorRegistry) -> None:
        counter, histogram = partial(Counter, registry=registry), partial(Histogram, registry=registry)
        gauge = partial(Gauge, registry=registry)
        self.attempts = counter("moe_upstream_attempts", "Tries at a replica.", ("expert", "replica", "outcome"))
        self.fallbacks = counter(
            "moe_fallbacks", "Moves from one expert to the next.", ("from_expert", "to_expert", "reason")
        )
        self.in_flight = gauge(
            "moe_requests_in_flight", "Requests that an expert holds.", ("expert",), multiprocess_mode=SUM
        )
        self.queued = gauge(
            "moe_requests_queued", "Requests that wait for an expert.", ("expert",), multiprocess_mode=SUM
        )
        self.queue = histogram(
            "moe_queue_seconds", "Time in an expert's queue, of those that had to wait.", ("expert",), buckets=DURATION
        )
        self.queue_refused = counter("moe_queue_refused", "Requests that got no place in time.", ("expert", "reason"))
        self.ejections = counter(
            "moe_replica_ejections", "How often a replica was taken out.", ("expert", "replica", "cause")
        )
        self.replica_up = gauge(
            "moe_replica_up",
            "Whether the replica may be asked; of several processes, by one of them.",
            ("expert", "replica"),
            multiprocess_mode=LARGEST,
        )
        self.replica_state = gauge(
            "moe_replica_state",
            "1 for the state that the replica is in; of several processes, for each that one of them sees.",
            ("expert", "replica", "state"),
            multiprocess_mode=LARGEST,
        )
        self.mismatch = gauge(
            "moe_expert_mismatch",
            "Whether a server of the expert's is not as experts.yaml says.",
            ("expert",),
            multiprocess_mode=LARGEST,
        )

    def _configuration(self, registry: CollectorRegistry) -> None:
        gauge = partial(Gauge, registry=registry)
        self.reloads = Counter(
            "moe_config_reloads", "Tries to load another experts.yaml.", ("outcome",), registry=registry
        )
        self.loaded = gauge(
            "moe_config_last_success_timestamp_seconds",
            "When experts.yaml was last loaded, in Unix time.",
            multiprocess_mode=NEWEST,
        )
        self.reloaded = gauge(
            "moe_config_last_reload_successful",
            "Whether the last experts.yaml that was found was taken.",
            multiprocess_mode=NEWEST,
        )
        self.config_info = gauge("moe_config_info", "The experts.yaml that runs.", ("hash",), multiprocess_mode=LARGEST)
        self.router_info = gauge(
            "moe_router_info", "The router that runs.", ("artifact", "encoder"), multiprocess_mode=LARGEST
        )
        self.build_info = gauge("moe_build_info", "The version that runs.", ("version",), multiprocess_mode=LARGEST)
