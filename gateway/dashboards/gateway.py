"""The gateway itself: what it adds to each request, its processes, what it dropped, and what runs."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from gateway.dashboards.frame import INSTANCES, frame, numbered, runbook, section
from gateway.dashboards.panels import (
    BYTES,
    COUNT,
    EVENTS,
    REQUESTS,
    SECONDS,
    Panel,
    Query,
    limits,
    lines,
    meanings,
    names,
    stacked,
    tile,
    trend,
)
from gateway.dashboards.promql import INSTANCE, RATE, events, or_zero, quantile, rate, series


def gateway() -> Dashboard:
    made = frame(
        "gateway",
        "moe-gateway: gateway",
        "The gateway's own health: what it adds to each request, processor, memory, connections, what was dropped, what runs.",
        (INSTANCES,),
    )
    section(made, "Now", _tiles())
    section(made, "Time", _time())
    section(made, "Processes", _processes())
    section(made, "Dropped and refused", _drops())
    section(made, "Ledger", _ledger())
    section(made, "What runs", _runs())
    return numbered(made)


def _tiles() -> list[Panel]:
    return [
        trend(
            "Gateways up",
            "Gateways that Prometheus reaches. Fewer than you started: look at the log of the missing one."
            + runbook("GatewayDown"),
            COUNT,
            Query(or_zero(f"count({series('moe_build_info', INSTANCE)})")),
        ),
        trend(
            "Overhead (p95)",
            "Time that the gateway itself added to 19 of 20 requests, waiting for experts left out. Normal is some milliseconds; "
            "above 100 ms it wants for processor time: start more processes." + runbook("GatewaySlow"),
            SECONDS,
            Query(quantile(0.95, "moe_gateway_overhead_seconds", INSTANCE)),
        ).thresholds(limits((0.025, "orange"), (0.1, "red"))),
        trend(
            "Event loop late (p99)",
            "How late the event loop comes to what is due. Above 50 ms every stream stutters: something blocks it, or the "
            "processor is full." + runbook("EventLoopLags"),
            SECONDS,
            Query(quantile(0.99, "moe_event_loop_lag_seconds", INSTANCE)),
        ).thresholds(limits((0.05, "orange"), (0.25, "red"))),
        trend(
            "Memory",
            "Resident memory of all processes of the gateways. It should be level after the first hours.",
            BYTES,
            Query(f"sum({series('moe_process_resident_memory_bytes', INSTANCE)})"),
        ),
        trend(
            "Open connections",
            "Clients' connections, idle ones too.",
            COUNT,
            Query(f"sum({series('moe_open_connections', INSTANCE)})"),
        ),
        tile(
            "Dropped or refused",
            "In all of the time shown: rows that the ledger lost, requests without a place in a queue, calls over a limit, "
            "connections that were refused. Normal is none.",
            EVENTS,
            Query(" + ".join(or_zero(events(metric, INSTANCE)) for metric in DROPS)),
        ).thresholds(limits((1, "orange"), (100, "red"))),
    ]


DROPS = (
    "moe_ledger_dropped_total",
    "moe_queue_refused_total",
    "moe_rate_limited_total",
    "moe_connections_refused_total",
)


def _time() -> list[Panel]:
    return [
        lines(
            "Overhead",
            "Time that the gateway itself added, waiting for experts left out.",
            SECONDS,
            *(
                Query(quantile(part, "moe_gateway_overhead_seconds", INSTANCE), f"p{part * 100:.0f}")
                for part in (0.5, 0.95, 0.99)
            ),
            limit=0.1,
        ),
        lines(
            "Overhead by endpoint (p95)",
            "The same by what was asked. Long prompts take longer to read and to classify.",
            SECONDS,
            Query(quantile(0.95, "moe_gateway_overhead_seconds", INSTANCE, "endpoint"), "{{endpoint}}"),
        ),
        lines(
            "Event loop",
            "How late it comes to what is due. It is the first to tell that processor time is short.",
            SECONDS,
            *(
                Query(quantile(part, "moe_event_loop_lag_seconds", INSTANCE), f"p{part * 100:.0f}")
                for part in (0.5, 0.99)
            ),
        ),
        stacked(
            "Requests by endpoint",
            "Finished requests by the second.",
            REQUESTS,
            Query(rate("moe_requests_total", INSTANCE, "endpoint"), "{{endpoint}}"),
        ),
    ]


def _processes() -> list[Panel]:
    return [
        lines(
            "Processor",
            "Cores that each gateway uses. One process uses one core at the most: near that, start more (MOE_GATEWAY_PROCESSES).",
            "suffix: cores",
            Query(rate("moe_process_cpu_seconds_total", INSTANCE, "instance"), "{{instance}}"),
        ).span(8),
        lines(
            "Resident memory",
            "Of all processes of each gateway. Memory that only grows for days is a leak."
            + runbook("GatewayMemoryGrows"),
            BYTES,
            Query(f"sum by (instance) ({series('moe_process_resident_memory_bytes', INSTANCE)})", "{{instance}}"),
        ).span(8),
        lines(
            "Connections and requests",
            "Clients' open connections, and requests that experts hold. Many connections with few requests are idle clients.",
            COUNT,
            Query(f"sum({series('moe_open_connections', INSTANCE)})", "connections"),
            Query(f"sum({series('moe_requests_in_flight', INSTANCE)})", "requests in flight"),
        ).span(8),
    ]


def _drops() -> list[Panel]:
    return [
        lines(
            "Requests refused",
            "Requests that got no place in an expert's queue, and calls over a limit. Normal is none."
            + runbook("QueueSaturated"),
            COUNT,
            Query(events("moe_queue_refused_total", INSTANCE, "expert, reason", RATE), "{{expert}}: {{reason}}"),
            Query(events("moe_rate_limited_total", INSTANCE, "kind", RATE), "limit: {{kind}}"),
        ),
        lines(
            "Connections refused",
            "Clients that were turned away before they asked, and why. Normal is none." + runbook("ConnectionsRefused"),
            COUNT,
            Query(events("moe_connections_refused_total", INSTANCE, "reason", RATE), "{{reason}}"),
        ),
    ]


def _ledger() -> list[Panel]:
    return [
        lines(
            "Ledger behind",
            "Age of the oldest row that is not written yet. Normal is below a second; if it grows the database is slow or away."
            + runbook("LedgerBehind"),
            SECONDS,
            Query(f"max by (instance) ({series('moe_ledger_lag_seconds', INSTANCE)})", "{{instance}}"),
            limit=60,
        ).span(8),
        lines(
            "Ledger queue",
            "Rows that wait to be written. When the queue is full rows are dropped, requests never wait.",
            COUNT,
            Query(f"sum by (instance) ({series('moe_ledger_queued', INSTANCE)})", "{{instance}}"),
        ).span(8),
        lines(
            "Ledger rows",
            "Rows written by the second, and rows dropped. Dropped rows are usage that no report will have."
            + runbook("LedgerDrops"),
            REQUESTS,
            Query(rate("moe_ledger_written_total", INSTANCE), "written"),
            Query(rate("moe_ledger_dropped_total", INSTANCE), "dropped"),
        ).span(8),
    ]


def _runs() -> list[Panel]:
    return [
        names(
            "Version",
            "The versions that run. More than one outside of a rollout: a gateway was forgotten.",
            Query(f"count by (version) ({series('moe_build_info', INSTANCE)})", "{{version}}"),
        ),
        names(
            "experts.yaml",
            "The hash of the file that runs; moe-gateway check --json prints the hash of yours. More than one: gateways "
            "differ." + runbook("ConfigDiffers"),
            Query(f"count by (hash) ({series('moe_config_info', INSTANCE)})", "{{hash}}"),
        ),
        names(
            "Router",
            "The trained router and its encoder.",
            Query(f"count by (artifact, encoder) ({series('moe_router_info', INSTANCE)})", "{{artifact}} {{encoder}}"),
        ).span(5),
        tile(
            "Loaded",
            "Since when the oldest of the gateways runs its experts.yaml.",
            "dateTimeFromNow",
            Query(f"1000 * min({series('moe_config_last_success_timestamp_seconds', INSTANCE)})"),
        ),
        tile(
            "Last reload",
            "Whether every gateway took the last experts.yaml that it was given; refused while the one before goes on. The log "
            "says what is wrong with the new one." + runbook("ReloadFailed"),
            "none",
            Query(f"min({series('moe_config_last_reload_successful', INSTANCE)})"),
        )
        .mappings(meanings((("0", "refused", "red"), ("1", "taken", "green"))))
        .span(3),
        tile(
            "Reloads",
            "Tries to load another experts.yaml in all of the time shown, by how they ended. Normal is as many as you made.",
            EVENTS,
            Query(events("moe_config_reloads_total", INSTANCE, "outcome"), "{{outcome}}"),
        ),
    ]
