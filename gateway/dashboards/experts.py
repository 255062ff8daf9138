"""Each expert and its replicas: who is up, how full, how quick, and what was taken out or fell back."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from gateway.dashboards.frame import EXPERTS, frame, numbered, runbook, section
from gateway.dashboards.panels import (
    COUNT,
    EVENTS,
    REQUESTS,
    SECONDS,
    SHARE,
    TOKENS,
    Column,
    Panel,
    Query,
    limits,
    lines,
    rows,
    stacked,
    tile,
    timeline,
    trend,
)
from gateway.dashboards.promql import ASKED, EXPERT, HOUR, RATE, WHOLE, events, growth, quantile, rate, series

ASLEEP = f'{EXPERT}, state="asleep"'
CACHE = f"{series('vllm:kv_cache_usage_perc', EXPERT)} or {series('vllm:gpu_cache_usage_perc', EXPERT)}"
LEFT = 'from_expert=~"$expert"'
UP = f"max by (expert, replica) ({series('moe_replica_up', EXPERT)})"


def experts() -> Dashboard:
    made = frame(
        "experts",
        "moe-gateway: experts",
        "Every expert and its replicas: load, queue, speed, cache, and who was taken out. Choose experts at the top.",
        (EXPERTS,),
    )
    section(made, "All", _all())
    section(made, "$expert", _each(), repeat="expert")
    return numbered(made)


def _all() -> list[Panel]:
    by = "expert"
    return [
        rows(
            "Experts",
            "One row an expert, as it is now; ejections and fallbacks are of all the time shown, and the cache is the fullest of "
            "its workers. Zero replicas up: its fallbacks answer, or it sleeps and a request wakes it."
            + runbook("ExpertDown"),
            [by],
            [
                Column("Up", f"sum by ({by}) ({UP})", COUNT, ((1, "green"),), "orange"),
                Column("Replicas", f"count by ({by}) ({UP})", COUNT),
                Column("In flight", f"sum by ({by}) ({series('moe_requests_in_flight', EXPERT)})", COUNT),
                Column(
                    "Queued",
                    f"sum by ({by}) ({series('moe_requests_queued', EXPERT)})",
                    COUNT,
                    ((1, "orange"), (20, "red")),
                ),
                Column("Requests", rate("moe_requests_total", ASKED, by), REQUESTS),
                Column(
                    "First token p95",
                    quantile(0.95, "moe_time_to_first_token_seconds", EXPERT, by),
                    SECONDS,
                    ((1.0, "orange"), (2.5, "red")),
                ),
                Column("Output", rate("moe_tokens_total", f'{EXPERT}, kind="output"', by), TOKENS),
                Column("Ejections", events("moe_replica_ejections_total", EXPERT, by), EVENTS, ((1, "orange"),)),
                Column(
                    "Fallbacks", _named(events("moe_fallbacks_total", LEFT, "from_expert")), EVENTS, ((1, "orange"),)
                ),
                Column("Cache full", f"max by ({by}) ({CACHE})", SHARE, ((0.8, "orange"), (0.95, "red"))),
                Column(
                    "Not as the file says",
                    f"max by ({by}) ({series('moe_expert_mismatch', EXPERT)})",
                    "bool_yes_no",
                    ((1, "red"),),
                ),
            ],
        ),
        rows(
            "Replicas",
            "One row a replica: its state, how many gateways see it so, tries in all the time shown and how many of them failed. A "
            "replica that fails more than its siblings is a machine to look at." + runbook("ReplicaDown"),
            [by, "replica", "state"],
            [
                Column(
                    "Gateways", f"count by ({by}, replica, state) ({series('moe_replica_state', EXPERT)} == 1)", COUNT
                ),
                Column("Tries", events("moe_upstream_attempts_total", EXPERT, f"{by}, replica"), EVENTS),
                Column(
                    "Failed",
                    events(
                        "moe_upstream_attempts_total",
                        f'{EXPERT}, outcome!~"ok|client_error|cancelled"',
                        f"{by}, replica",
                    ),
                    EVENTS,
                    ((1, "orange"),),
                ),
                Column(
                    "Ejections",
                    events("moe_replica_ejections_total", EXPERT, f"{by}, replica"),
                    EVENTS,
                    ((1, "orange"),),
                ),
            ],
        ),
    ]


def _named(by_from: str) -> str:
    """With the expert that was left in the label that all other columns have."""
    return f'sum by (expert) (label_replace({by_from}, "expert", "$1", "from_expert", "(.*)"))'


def _each() -> list[Panel]:
    return [*_state(), *_load(), *_speed(), *_worker(), *_mishaps(), *_sleep()]


def _state() -> list[Panel]:
    return [
        timeline(
            "$expert: replicas up",
            "Whether each replica may be asked. One that goes up and down is ejected again and again: see its ejections below.",
            (("0", "down", "red"), ("1", "up", "green")),
            Query(UP, "{{replica}}"),
        ),
        stacked(
            "$expert: tries by replica",
            "Tries at each replica by how they ended. Only ok, client_error and cancelled are no fault of the replica's.",
            REQUESTS,
            Query(rate("moe_upstream_attempts_total", EXPERT, "replica, outcome"), "{{replica}} {{outcome}}"),
        ),
    ]


def _load() -> list[Panel]:
    return [
        lines(
            "$expert: load",
            "Requests that it holds and that wait for it. A queue that stays is an expert too small for its traffic: another "
            "replica, or a larger max_in_flight if its server has room." + runbook("QueueSaturated"),
            COUNT,
            Query(f"sum({series('moe_requests_in_flight', EXPERT)})", "in flight"),
            Query(f"sum({series('moe_requests_queued', EXPERT)})", "queued"),
        ),
        lines(
            "$expert: wait in the queue",
            "How long requests waited, of those that had to. Those that got no place in time are with what was taken out, below.",
            SECONDS,
            Query(quantile(0.5, "moe_queue_seconds", EXPERT), "p50"),
            Query(quantile(0.95, "moe_queue_seconds", EXPERT), "p95"),
        ),
    ]


def _speed() -> list[Panel]:
    return [
        lines(
            "$expert: tokens",
            "Tokens by the second, as its servers count them. Input is what was read anew, cached_input what its "
            "prefix cache had; reasoning is a part of output.",
            TOKENS,
            Query(rate("moe_tokens_total", EXPERT, "kind"), "{{kind}}"),
        ),
        lines(
            "$expert: pace of streams",
            "Time to the first token, and between tokens after it. Slow first tokens are a queue or long prompts; slow tokens "
            "after it are a server with too many at once.",
            SECONDS,
            Query(quantile(0.5, "moe_time_to_first_token_seconds", EXPERT), "first token p50"),
            Query(quantile(0.95, "moe_time_to_first_token_seconds", EXPERT), "first token p95"),
            Query(quantile(0.95, "moe_time_per_output_token_seconds", EXPERT), "each token p95"),
        ),
    ]


def _worker() -> list[Panel]:
    hits, asked = (rate(f"vllm:prefix_cache_{word}_total", EXPERT) for word in ("hits", "queries"))
    return [
        lines(
            "$expert: key-value cache of its workers",
            "How full each vLLM's cache is, by its own count, and which share of prompts it had there already. Above 95 % "
            "requests wait or begin anew. Nothing is shown of servers that Prometheus does not ask."
            + runbook("WorkerCacheFull"),
            SHARE,
            Query(f"max by (instance) ({CACHE})", "{{instance}} full"),
            Query(f"{hits} / ({asked} > 0)", "prompt tokens found"),
            limit=0.95,
        ),
        lines(
            "$expert: inside its workers",
            "Requests that each vLLM computes and that wait in it, by its own count. Many waiting while others have none: "
            "weights of replicas are wrong.",
            COUNT,
            Query(f"sum by (instance) ({series('vllm:num_requests_running', EXPERT)})", "{{instance}} running"),
            Query(f"sum by (instance) ({series('vllm:num_requests_waiting', EXPERT)})", "{{instance}} waiting"),
        ),
    ]


def _mishaps() -> list[Panel]:
    left = events("moe_fallbacks_total", LEFT, "to_expert, reason", RATE)
    return [
        lines(
            "$expert: fallbacks",
            "Requests that others had to answer in its place, and why. Normal is none; a storm of them overloads the others."
            + runbook("FallbackStorm"),
            COUNT,
            Query(left, "to {{to_expert}}: {{reason}}"),
        ),
        lines(
            "$expert: taken out and refused",
            "Replicas that were ejected, by cause, and requests that got no place in the queue. Normal is none of both."
            + runbook("ReplicaFlapping"),
            COUNT,
            Query(events("moe_replica_ejections_total", EXPERT, "replica, cause", RATE), "{{replica}}: {{cause}}"),
            Query(events("moe_queue_refused_total", EXPERT, "reason", RATE), "refused: {{reason}}"),
        ),
    ]


def _sleep() -> list[Panel]:
    asleep = f"sum(max by (replica) ({series('moe_worker_state', ASLEEP)}))"
    return [
        trend(
            "$expert: asleep",
            "Launched workers that sleep and cost no GPU. Nothing is shown for workers that the gateway did not launch.",
            COUNT,
            Query(asleep),
        ).span(6),
        tile(
            "$expert: worker-hours asleep",
            "In all of the time shown: hours of a GPU that something else could use.",
            "h",
            Query(f"{growth('moe_worker_asleep_seconds_total', EXPERT)} / {HOUR}"),
        ).span(6),
        tile(
            "$expert: waking takes (p95)",
            "From the order to wake until it can answer, in all of the time shown. Those who wake it wait so long.",
            SECONDS,
            Query(quantile(0.95, "moe_worker_wake_seconds", EXPERT, over=WHOLE)),
        ).span(6),
        tile(
            "$expert: restarts of workers",
            "Launched workers that died and were started again, in all of the time shown. Normal is none; the worker's log "
            "says why: moe-gateway workers logs." + runbook("WorkerRestarts"),
            EVENTS,
            Query(events("moe_worker_restarts_total", EXPERT)),
        )
        .span(6)
        .thresholds(limits((1, "orange"), (5, "red"))),
    ]
