"""What the router decides, how sure it is, and whether what applications send has changed."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from gateway.dashboards.frame import DOMAINS, EXPERTS, frame, numbered, runbook, section
from gateway.dashboards.panels import (
    COUNT,
    EVENTS,
    REQUESTS,
    SECONDS,
    SHARE,
    Column,
    Panel,
    Query,
    bars,
    heat_map,
    limits,
    lines,
    rows,
    shares,
    stacked,
    tile,
)
from gateway.dashboards.promql import (
    BOTH,
    DOMAIN,
    RATE,
    WHOLE,
    buckets,
    events,
    fraction,
    growth,
    or_zero,
    quantile,
    rate,
    share,
)

DECISIONS = "moe_routing_decisions_total"
NOW, THEN = "[1h]", "[1h] offset 1w"
MOVED = ((-1, "orange"), (-0.1, "text"), (0.1, "orange"))  # a tenth of the traffic, either way
UNSURE = f'{BOTH}, reason=~"low_confidence|out_of_distribution|unreadable_language"'


def routing() -> Dashboard:
    made = frame(
        "routing",
        "moe-gateway: routing",
        "What the router decides and how sure it is; whether what applications send is still what it was last week.",
        (EXPERTS, DOMAINS),
    )
    section(made, "In this time", _tiles())
    section(made, "Decisions", _decisions())
    section(made, "How sure", _confidence())
    section(made, "Drift: this hour against the same hour last week", _drift())
    section(made, "Conversations and time", _rest())
    return numbered(made)


def _tiles() -> list[Panel]:
    every = events(DECISIONS, BOTH)
    turns = events("moe_conversation_turns_total")
    return [
        tile(
            "Decisions",
            "Requests that the router decided, pinned ones among them.",
            EVENTS,
            Query(or_zero(every)),
        ),
        tile(
            "Out of distribution",
            "Share of decisions on prompts unlike all that the router was trained on; the fallback expert has them. If it grows, "
            "applications ask something new: a domain of its own, see docs/adding-domains.md.",
            SHARE,
            Query(share(events(DECISIONS, f'{BOTH}, reason="out_of_distribution"'), every)),
        ).thresholds(limits((0.1, "orange"), (0.3, "red"))),
        tile(
            "Unsure",
            "Share of decisions that went to the fallback expert since the router was unsure: low confidence, out of "
            "distribution, or a language that it cannot read." + runbook("RouterUnsure"),
            SHARE,
            Query(share(events(DECISIONS, UNSURE), every)),
        ).thresholds(limits((0.25, "orange"), (0.5, "red"))),
        tile(
            "Bounce rate",
            "Of later turns of conversations, how many went to another expert than the turn before, for whatever cause. Normal is "
            "below 10 %: each costs the prefix cache. Of the whole gateway, whatever is chosen above.",
            SHARE,
            Query(share(events("moe_conversation_switches_total"), turns)),
        ).thresholds(limits((0.1, "orange"), (0.25, "red"))),
        tile(
            "Drift",
            "How far this hour's mix of domains is from the same hour's a week ago: 0 is the same mix, 100 % has nothing in common "
            "(total variation distance). Above 30 % look below for the domain that moved." + runbook("DomainMixDrifts"),
            SHARE,
            Query(_distance()),
        ).thresholds(limits((0.15, "orange"), (0.3, "red"))),
        tile(
            "Deciding takes (p95)",
            "19 of 20 decisions took less. Above 50 ms the gateway wants for processor time: see Gateway.",
            SECONDS,
            Query(quantile(0.95, "moe_routing_duration_seconds", over=WHOLE)),
        ).thresholds(limits((0.02, "orange"), (0.05, "red"))),
    ]


def _decisions() -> list[Panel]:
    return [
        stacked(
            "Decisions by domain",
            "By the most probable domain, whichever expert was then chosen; none is what was not classified, such as a pinned "
            "model.",
            REQUESTS,
            Query(rate(DECISIONS, BOTH, "domain"), "{{domain}}"),
        ),
        stacked(
            "Decisions by reason",
            "Why the expert was chosen. More sticky is longer conversations, more only_capable is requests that few experts can "
            "do, more fallback is experts that are down.",
            REQUESTS,
            Query(rate(DECISIONS, BOTH, "reason"), "{{reason}}"),
        ),
        stacked(
            "Decisions by expert",
            "Whom the router chose; who answered in the end is on Overview.",
            REQUESTS,
            Query(rate(DECISIONS, BOTH, "expert"), "{{expert}}"),
        ),
        shares(
            "Share of each stage",
            "static is the quick classifier, transformer the slow one for what that left open, none where nothing was classified. "
            "A growing share of transformer costs processor time.",
            Query(fraction(rate(DECISIONS, BOTH, "stage"), rate(DECISIONS, BOTH)), "{{stage}}"),
        ),
    ]


def _confidence() -> list[Panel]:
    return [
        heat_map(
            "Confidence over time",
            "Probability of the most probable domain: darker is more decisions. Normal is dark at the top; a band that sinks is "
            "prompts that the router knows less and less.",
            SHARE,
            Query(buckets("moe_routing_confidence", DOMAIN), "{{le}}"),
        ),
        lines(
            "Confidence by domain",
            "One decision in ten is less sure than this. A domain that sinks alone wants more examples.",
            SHARE,
            Query(quantile(0.1, "moe_routing_confidence", DOMAIN, "domain"), "{{domain}}"),
        ).max(1),
        bars(
            "Reasons in this time",
            "Decisions by reason, in all of the time shown.",
            EVENTS,
            Query(f"sort_desc({events(DECISIONS, BOTH, 'reason')})", "{{reason}}"),
        ),
        bars(
            "Less sure than",
            "Share of decisions whose confidence was at most this, in all of the time shown. The floor below which the fallback "
            "expert answers stands in experts.yaml.",
            SHARE,
            *(Query(_at_most(bound), bound) for bound in ("0.5", "0.7", "0.9")),
        ).max(1),
        lines(
            "Unsure over time",
            "Share of decisions by each doubt. A step is a new application or a new language; the fallback expert has it all."
            + runbook("ConfidenceCollapse"),
            SHARE,
            Query(fraction(rate(DECISIONS, UNSURE, "reason"), rate(DECISIONS, BOTH)), "{{reason}}"),
        ).span(8),
    ]


def _at_most(confidence: str) -> str:
    histogram = "moe_routing_confidence"
    below = growth(f"{histogram}_bucket", f'{DOMAIN}, le="{confidence}"')
    return f"{below} / ({growth(f'{histogram}_count', DOMAIN)} > 0)"


def _drift() -> list[Panel]:
    now, then = _mix(NOW), _mix(THEN)
    return [
        lines(
            "Drift over time",
            "The distance of each hour's mix of domains from the same hour's a week before. It needs a week of history.",
            SHARE,
            Query(_distance(), "distance"),
            limit=0.3,
        ).max(1),
        rows(
            "Mix of domains",
            "The share of each domain in the last hour, in the same hour a week ago, and by how much it moved.",
            ["domain"],
            [
                Column("This hour", now, SHARE),
                Column("Last week", then, SHARE),
                Column("Moved", f"{_both(now, then)} - {_both(then, now)}", SHARE, MOVED),
            ],
        ).span(12),
    ]


def _mix(over: str) -> str:
    """The share of each domain among what was classified."""
    of = f'rate({DECISIONS}{{domain!="none"}}{over})'
    return fraction(f"sum by (domain) ({of})", f"sum({of})")


def _both(mix: str, other: str) -> str:
    """A mix, with 0 for what is only in the other one."""
    return f"(({mix}) or 0 * ({other}))"


def _distance() -> str:
    now, then = _mix(NOW), _mix(THEN)
    return f"sum(abs({_both(now, then)} - {_both(then, now)})) / 2"


def _rest() -> list[Panel]:
    return [
        lines(
            "Switches of expert",
            "Turns that went to another expert than the turn before, by cause: topic is a real change, the others are an expert "
            "that could not be asked or not do it.",
            COUNT,
            Query(events("moe_conversation_switches_total", "", "cause", RATE), "{{cause}}"),
        ),
        lines(
            "Time to decide, by stage",
            "19 of 20 decisions of each stage took less, and half of them.",
            SECONDS,
            Query(quantile(0.95, "moe_routing_duration_seconds", by="stage"), "{{stage}} p95"),
            Query(quantile(0.5, "moe_routing_duration_seconds", by="stage"), "{{stage}} p50"),
        ),
    ]
