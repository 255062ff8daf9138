"""What answers cost, who spent it, what it saved, and what the month will come to."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from gateway.dashboards.frame import DOMAINS, EXPERTS, frame, numbered, runbook, section
from gateway.dashboards.money import IDLE, PAID, hours, saved, spent
from gateway.dashboards.panels import (
    EVENTS,
    SHARE,
    USD,
    USD_PER_HOUR,
    Panel,
    Query,
    bars,
    limits,
    lines,
    stacked,
    tile,
)
from gateway.dashboards.promql import (
    ASKED,
    BOTH,
    DAY,
    EXPERT,
    HOUR,
    RATE,
    events,
    fraction,
    growth,
    or_zero,
    rate,
    share,
    total,
)

TODAY, MONTH = "now/d", "now/M"


def cost() -> Dashboard:
    made = frame(
        "cost",
        "moe-gateway: cost",
        "Spending by expert, domain and key, savings against the baselines, and the month's forecast. Days and months are those "
        "of UTC, as in the ledger. What each figure is: docs/cost.md.",
        (EXPERTS, DOMAINS),
    )
    made.timezone("utc").time("now-24h", "now").refresh("1m")
    section(made, "Spending", _tiles())
    section(made, "Who spends it", _spending())
    section(made, "Savings", _savings())
    section(made, "GPUs paid by the hour, and energy", _capacity())
    return numbered(made)


def _tiles() -> list[Panel]:
    answered = events("moe_requests_total", f'{ASKED}, expert!="none", code=~"2.."')
    return [
        tile(
            "Spent in this time",
            "USD: tokens at their prices and the hours of GPUs that are paid by the hour, idle ones too.",
            USD,
            Query(or_zero(spent())),
        ),
        tile(
            "Spent today",
            "USD since midnight UTC: tokens, and the hours of GPUs that are paid by the hour.",
            USD,
            Query(or_zero(spent())),
        ).time_from(TODAY),
        tile(
            "Forecast for this month",
            "USD: spent since the month began, and the pace of the last 7 days for what is left of it. With less than 7 days of "
            "history the pace is that of what there is.",
            USD,
            Query(_forecast()),
        ).time_from(MONTH),
        tile(
            "Per answered request",
            "USD: spending over requests that got a 2xx. It grows with longer prompts, dearer experts and idle GPUs.",
            USD,
            Query(f"{or_zero(spent())} / ({answered} > 0)"),
        ).decimals(5),
        tile(
            "Saved, net",
            "USD against each baseline: what the same answers would have cost there, less what they cost here, GPUs and routing "
            "included. Below zero it would have been cheaper there. Of the whole gateway.",
            USD,
            Query(saved(), "{{baseline}}"),
        ).thresholds(limits((0, "green"), base="red")),
        tile(
            "Without a price",
            "Answers whose cost is not known: no price in experts.yaml, or the server told no usage. Normal is none; "
            "moe-gateway check names the experts." + runbook("UnpricedTraffic"),
            EVENTS,
            Query(or_zero(events("moe_unpriced_requests_total", EXPERT))),
        ).thresholds(limits((1, "orange"))),
    ]


def _forecast() -> str:
    week = spent(over="7d")
    known = "time() - min_over_time(timestamp(sum(moe_cost_usd_total or moe_capacity_cost_usd_total))[7d:10m])"
    left = f"((days_in_month() - day_of_month() + 1) * {DAY} - time() % {DAY})"
    return f"{or_zero(spent())} + {week} / ({known}) * {left}"


def _spending() -> list[Panel]:
    tokens = "moe_cost_usd_total"
    return [
        stacked(
            "Pace by expert",
            "USD by the hour, tokens and GPUs. A step without more traffic is another price or another mix."
            + runbook("CostSpike"),
            USD_PER_HOUR,
            Query(f"{HOUR} * {spent(by='expert', over=RATE, of='rate')}", "{{expert}}"),
        ),
        stacked(
            "Pace by domain",
            "USD by the hour for tokens, by the domain of the prompt. GPUs paid by the hour belong to no domain.",
            USD_PER_HOUR,
            Query(f"{HOUR} * {rate(tokens, BOTH, 'domain')}", "{{domain}}"),
        ),
        bars(
            "By expert",
            "USD in all of the time shown, tokens and GPUs.",
            USD,
            Query(f"sort_desc({spent(by='expert')})", "{{expert}}"),
        ),
        bars(
            "By domain",
            "USD for tokens in all of the time shown.",
            USD,
            Query(f"sort_desc({growth(tokens, BOTH, 'domain')})", "{{domain}}"),
        ),
        bars(
            "By key",
            "USD in all of the time shown, by the names in MOE_GATEWAY_KEYS: tokens, and an estimated share of GPU hours. other is "
            "all beyond the fiftieth; by day: moe-gateway usage. Of the whole gateway, whatever is chosen above.",
            USD,
            Query(f"sort_desc({growth('moe_key_cost_usd_total', by='key')})", "{{key}}"),
        ),
        stacked(
            "Pace by key",
            "USD by the hour by key: tokens, and an estimated share of GPU hours. One that runs away is a caller's "
            "loop: limit it or take its key.",
            USD_PER_HOUR,
            Query(f"{HOUR} * {rate('moe_key_cost_usd_total', by='key')}", "{{key}}"),
        ),
        lines(
            "Cost of a million tokens",
            "USD for a million tokens read or written, by expert, everything paid. For GPUs by the hour it falls with load: "
            "compare it with a provider's price.",
            USD,
            Query(
                f"1e6 * {spent(by='expert', over=RATE, of='rate')}"
                f" / on (expert) ({rate('moe_tokens_total', _COUNTED, 'expert')} > 0)",
                "{{expert}}",
            ),
        ),
    ]


_COUNTED = f'{EXPERT}, kind!="reasoning"'  # a part of output


def _savings() -> list[Panel]:
    def by_baseline(word: str) -> str:
        return growth(f"moe_{word}_cost_usd_total", by="baseline")

    return [
        bars(
            "What it would have cost there",
            "USD: the same tokens at each baseline's price. dearest is always asking the dearest expert that could do it.",
            USD,
            Query(by_baseline("baseline"), "{{baseline}}"),
        ),
        bars(
            "What it cost here",
            "USD that the same requests cost by token prices, and what is paid besides: GPUs by the hour, and routing itself "
            "(processor time, and prefix caches lost on a switch).",
            USD,
            Query(by_baseline("compared"), "answers beside {{baseline}}"),
            Query(or_zero(total(hours(PAID, ""))), "GPUs by the hour"),
            Query(growth("moe_routing_cost_usd_total", by="part"), "routing: {{part}}"),
        ),
        bars(
            "Share compared",
            "Share of answered requests that a baseline could be compared with. What stand-ins answered, and what has no price, "
            "is not: a saving over a small share says little.",
            SHARE,
            Query(
                fraction(events("moe_compared_requests_total", by="baseline"), events("moe_comparable_requests_total")),
                "{{baseline}}",
            ),
        ).max(1),
        lines(
            "Saving over time, net",
            "USD by the hour against each baseline; below zero it would have been cheaper there.",
            USD_PER_HOUR,
            Query(f"{HOUR} * ({saved(RATE, 'rate')})", "{{baseline}}"),
        ),
        lines(
            "Baseline and here",
            "USD by the hour: each baseline, and what is paid here in all.",
            USD_PER_HOUR,
            Query(f"{HOUR} * {rate('moe_baseline_cost_usd_total', by='baseline')}", "at {{baseline}}"),
            Query(
                f"{HOUR} * ({or_zero(spent('', over=RATE, of='rate'))}"
                f" + {or_zero(rate('moe_routing_cost_usd_total'))})",
                "here",
            ),
        ),
    ]


def _pace(metric: str) -> str:
    return hours(metric, over=RATE, of="rate")


def _capacity() -> list[Panel]:
    idle = total(hours(IDLE))
    return [
        tile(
            "Idle GPUs cost",
            "USD in all of the time shown that was paid for replicas with nothing to do.",
            USD,
            Query(or_zero(idle)),
        ).span(6),
        tile(
            "Idle share",
            "Of what was paid for GPUs by the hour, how much was for idle ones.",
            SHARE,
            Query(share(idle, total(hours(PAID)))),
        )
        .thresholds(limits((0.5, "orange"), (0.9, "red")))
        .span(6),
        tile(
            "Energy",
            "By the watts that experts.yaml declares, in all of the time shown; nothing is shown where it declares none. Several "
            "gateways before the same servers each count idle watts: then it is too much.",
            "watth",
            Query(growth("moe_energy_wh_total", EXPERT)),
        ).span(6),
        tile(
            "Emissions",
            "CO2e of that energy, by the grams a kWh that experts.yaml declares.",
            "massg",
            Query(growth("moe_emissions_gco2e_total", EXPERT)),
        ).span(6),
        stacked(
            "GPUs by the hour, busy and idle",
            "USD by the hour for replicas paid by the hour. Idle is while a replica had nothing in flight of the "
            "gateway that counts: let it sleep (sleep_after), or give it more to do.",
            USD_PER_HOUR,
            Query(f"{HOUR} * ({_pace(PAID)} - {_pace(IDLE)})", "{{expert}} busy"),
            Query(f"{HOUR} * {_pace(IDLE)}", "{{expert}} idle"),
        ).span(8),
        lines(
            "Power",
            "Mean power of the declared experts: Wh by the hour.",
            "watt",
            Query(f"{HOUR} * {rate('moe_energy_wh_total', EXPERT, 'expert')}", "{{expert}}"),
        ).span(8),
        lines(
            "Energy of a thousand output tokens",
            "Wh for a thousand tokens put out. It falls with load, as many answers share one GPU.",
            "watth",
            Query(
                f"1000 * {rate('moe_energy_wh_total', EXPERT, 'expert')} / on (expert) "
                f"({rate('moe_tokens_total', _OUTPUT, 'expert')} > 0)",
                "{{expert}}",
            ),
        ).span(8),
    ]


_OUTPUT = f'{EXPERT}, kind="output"'
