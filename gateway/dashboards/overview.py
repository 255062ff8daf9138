"""The first screen: whether answers come, how soon, from whom, and at what cost."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard, DynamicConfigValue

from gateway.dashboards.frame import EXPERTS, frame, numbered, runbook, section
from gateway.dashboards.money import saved, spent
from gateway.dashboards.panels import (
    COUNT,
    EVENTS,
    REQUESTS,
    SECONDS,
    SHARE,
    TOKENS,
    USD,
    USD_PER_HOUR,
    Column,
    Panel,
    Query,
    limits,
    lines,
    rows,
    stacked,
    tile,
    trend,
)
from gateway.dashboards.promql import (
    ASKED,
    EXPERT,
    HOUR,
    RATE,
    WHOLE,
    events,
    or_zero,
    quantile,
    rate,
    series,
    share,
    share_by,
)

ERRORS = 'code=~"5.."'
TODAY = "now/d"
SLEEPS = series("moe_worker_state", f'{EXPERT}, state=~"asleep|waking|stopping"')
DOWN = (
    f"(max by (expert) ({series('moe_replica_up', EXPERT)}) == 0) unless on (expert) (max by (expert) ({SLEEPS}) == 1)"
)


def overview() -> Dashboard:
    made = frame(
        "overview",
        "moe-gateway: overview",
        "Whether answers come, how soon, from whom and at what cost. Start here, go on by the links at the top.",
        (EXPERTS,),
    )
    section(made, "Now", [panel.span(3) for panel in _now()])
    section(made, "Requests", _requests())
    section(made, "By expert", _experts())
    return numbered(made)


def _now() -> list[Panel]:
    requests = rate("moe_requests_total", EXPERT)
    return [
        trend(
            "Requests",
            "Finished requests by the second. Compare with the same hour of other days; none at all while applications run "
            "means that they cannot reach the gateway.",
            REQUESTS,
            Query(or_zero(requests)),
        ),
        trend(
            "Failed",
            "Share of requests that got a 5xx from us. Normal is below 0.1 %. If it is more: Experts shows whose replicas are "
            "down, the gateway's log has each failure with its request id." + runbook("AvailabilityBurnsFast"),
            SHARE,
            Query(
                share(
                    events("moe_requests_total", f"{EXPERT}, {ERRORS}", over=RATE),
                    events("moe_requests_total", EXPERT, over=RATE),
                )
            ),
        ).thresholds(limits((0.001, "orange"), (0.01, "red"))),
        trend(
            "Answered within (p95)",
            "19 of 20 requests were complete within this time. It grows with the length of answers: look at the time to the "
            "first token before blaming an expert.",
            SECONDS,
            Query(quantile(0.95, "moe_request_duration_seconds", ASKED)),
        ),
        trend(
            "First token within (p95)",
            "19 of 20 streams began within this time, as their clients saw it. The objective is 2.5 s; 10 s stands for "
            "all that is longer. If it is more: Experts shows which expert queues." + runbook("FirstTokenBurnsFast"),
            SECONDS,
            Query(quantile(0.95, "moe_time_to_first_token_seconds", EXPERT)),
        ).thresholds(limits((1.0, "orange"), (2.5, "red"))),
        trend(
            "Experts down",
            "Experts none of whose replicas may be asked, those that sleep left out; their fallbacks answer in their place. Normal "
            "is none." + runbook("ExpertDown"),
            COUNT,
            Query(or_zero(f"count({DOWN})")),
        ).thresholds(limits((1, "red"), base="green")),
        trend(
            "Alerts firing",
            "Alerts that fire now, of all that this Prometheus watches. Which ones: Alertmanager, or ALERTS in Explore; each of "
            "ours has its page in docs/runbooks.",
            COUNT,
            Query(or_zero('count(ALERTS{alertstate="firing", alertname!~"Watchdog|InfoInhibitor"})')),
        ).thresholds(limits((1, "red"), base="green")),
        tile(
            "Spent today",
            "USD since midnight where you are: tokens at their prices and the hours of GPUs that are paid by the hour. Cost "
            "says for what.",
            USD,
            Query(or_zero(spent())),
        ).time_from(TODAY),
        tile(
            "Saved today, net",
            "USD since midnight: what the same answers would have cost at each baseline, less what they cost here, GPUs and "
            "routing included. Below zero the baseline would have been cheaper. Of the whole gateway, whichever experts are "
            "chosen; nothing is shown while no baseline applies.",
            USD,
            Query(saved(), "{{baseline}}"),
        )
        .thresholds(limits((0, "green"), base="red"))
        .time_from(TODAY),
    ]


def _requests() -> list[Panel]:
    return [
        stacked(
            "Traffic by expert",
            "Finished requests by the second and by who answered, decisions alone (/v1/route) left out; none is what nobody "
            "answered, such as a refused key. A sudden change of the mix is a change of what applications ask: see Routing.",
            REQUESTS,
            Query(rate("moe_requests_total", ASKED, "expert"), "{{expert}}"),
        ),
        stacked(
            "Errors by status",
            "Requests that ended with a 4xx or 5xx; each point counts those of the interval before it. 4xx are the callers' own; "
            "429 and 503 say that experts are full, 502 and 504 that nobody could answer.",
            COUNT,
            Query(events("moe_requests_total", f'{EXPERT}, code=~"[45].."', "code", RATE), "{{code}}"),
        ),
        lines(
            "Time to answer",
            "From the first byte of a request to the last of its answer. p50 is the middle, p99 the slowest of a hundred. "
            "Dots are single requests, with the ids of their traces, where the gateway traces.",
            SECONDS,
            *_percentiles("moe_request_duration_seconds", ASKED),
        ),
        lines(
            "Time to first token",
            "Of streams, as their clients saw it; 10 s stands for all that is longer. A growing distance between p50 and p99 is a "
            "queue: see Experts.",
            SECONDS,
            *_percentiles("moe_time_to_first_token_seconds", EXPERT),
            limit=2.5,
        ),
        lines(
            "Streams that broke",
            "Streams that failed after they had begun: their status says 200 all the same. Normal is none; the log has the "
            "replica of each.",
            COUNT,
            Query(events("moe_stream_errors_total", EXPERT, "expert, kind", RATE), "{{expert}} {{kind}}"),
        ),
        lines(
            "Clients that left",
            "Requests whose client went away before the answer was complete, by what we were doing, whichever expert it was. Many "
            "while waiting: answers are slower than clients' time-outs.",
            COUNT,
            Query(events("moe_client_disconnects_total", "", "phase", RATE), "{{phase}}"),
        ),
    ]


def _percentiles(histogram: str, where: str) -> list[Query]:
    return [
        Query(quantile(part, histogram, where), f"p{part * 100:.0f}", exemplars=part == 0.95)
        for part in (0.5, 0.95, 0.99)
    ]


def _figures() -> DynamicConfigValue:
    """The link from an expert's name to its figures."""
    url = "/d/moe-experts?var-expert=${__value.raw}&${__url_time_range}"
    return DynamicConfigValue("links", [{"title": "Its replicas, load and speed", "url": url}])


def _experts() -> list[Panel]:
    by, over = "expert", WHOLE
    requests = events("moe_requests_total", ASKED, by)
    failed = events("moe_requests_total", f"{ASKED}, {ERRORS}", by)
    return [
        rows(
            "Experts in this time",
            "What each expert was asked in all of the time shown, decisions alone left out. Sort by a column; a click on an expert "
            "opens its own figures.",
            [by],
            [
                Column("Requests", requests, EVENTS),
                Column(
                    "Failed",
                    share_by(by, failed, requests),
                    SHARE,
                    ((0.001, "orange"), (0.01, "red")),
                ),
                Column("p95", quantile(0.95, "moe_request_duration_seconds", ASKED, by, over), SECONDS),
                Column(
                    "First token p95",
                    quantile(0.95, "moe_time_to_first_token_seconds", EXPERT, by, over),
                    SECONDS,
                    ((1.0, "orange"), (2.5, "red")),
                ),
                Column("Output", rate("moe_tokens_total", f'{EXPERT}, kind="output"', by, over), TOKENS),
                Column("Spent", spent(by=by), USD),
                Column("In flight", f"sum by ({by}) (moe_requests_in_flight{{{EXPERT}}})", COUNT),
            ],
        ).override_by_name(by, [_figures()]),
        stacked(
            "Spending by expert",
            "USD by the hour at the pace of each moment. A step without more traffic is a change of price or of the mix.",
            USD_PER_HOUR,
            Query(f"{HOUR} * {spent(by=by, over=RATE, of='rate')}", "{{expert}}"),
        ),
        lines(
            "Saving by baseline, net",
            "USD by the hour saved against each baseline, GPUs and routing paid; below zero it would have been cheaper there.",
            USD_PER_HOUR,
            Query(f"{HOUR} * ({saved(RATE, 'rate')})", "{{baseline}}"),
        ),
    ]
