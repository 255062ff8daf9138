"""Made-up experts files of few words, and strategies for them and for what they are asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from router.decision import Query, Scores
from router.experts import CAPABILITIES, VIRTUAL_MODELS, Expert, ExpertsFile

DOMAINS = ("code", "math", "general")


def fleet(experts: Mapping[str, Mapping[str, Any]], floor: float = 0.0, **more: Any) -> ExpertsFile:
    """The experts named, each with a model and an upstream; the first that serves `general` is the fallback."""
    entries = {name: {"model": "m", "upstream": {"embedded": "smollm2"}, **about} for name, about in experts.items()}
    options = {"confidence_floor": floor, **more.pop("router", {})}
    return ExpertsFile.model_validate({"version": 1, "experts": entries, "router": options, **more})


def price(usd: float) -> dict[str, float]:
    """A price whose blend is `usd`."""
    return {"input": usd, "output": usd}


def chances(**by_domain: float) -> Scores:
    return Scores(by_domain, "transformer")


HOURLY = st.sampled_from([{"gpu_hour": 0.36}, {"gpu_hour": 3.6, "gpus": 2}])
PRICES = st.none() | st.sampled_from([0.0, 0.1, 0.2, 1.0]).map(price) | HOURLY
WINDOWS = st.none() | st.sampled_from([100, 1000, 4000])
VIRTUAL = st.sampled_from(VIRTUAL_MODELS)
SOME_CAPABILITIES = st.frozensets(st.sampled_from(CAPABILITIES[:3]))


@st.composite
def fleets(draw: st.DrawFn) -> ExpertsFile:
    """One to five experts of every make, who serve all of DOMAINS among them."""
    names = draw(st.sampled_from([("a",), ("a", "b"), ("a", "b", "c"), ("a", "b", "c", "d", "e")]))
    experts: dict[str, dict[str, Any]] = {
        name: {
            "domains": draw(st.dictionaries(st.sampled_from(DOMAINS), st.floats(0, 1), min_size=1)),
            "price": draw(PRICES),
            "context_window": draw(WINDOWS),
            "capabilities": sorted(draw(SOME_CAPABILITIES)),
            "fallbacks": draw(st.permutations([n for n in names if n != name]))[: draw(st.integers(0, 2))],
        }
        for name in names
    }
    for domain in DOMAINS:
        experts[names[0]]["domains"].setdefault(domain, 0.5)
    options = {"fallback": draw(st.none() | st.sampled_from(names))}
    return fleet(experts, floor=draw(st.sampled_from([0.0, 0.55, 0.9])), router=options)


@st.composite
def probabilities(draw: st.DrawFn) -> dict[str, float]:
    weights = [draw(st.floats(0.01, 1)) ** 3 for _ in DOMAINS]
    return {domain: weight / sum(weights) for domain, weight in zip(DOMAINS, weights, strict=True)}


@st.composite
def queries(draw: st.DrawFn, text: str = "", model: st.SearchStrategy[str] = VIRTUAL) -> Query:
    least = draw(st.sampled_from([0, 50, 500, 2000, 9000]))
    return Query(
        text=text,
        requested_model=draw(model),
        needs=draw(SOME_CAPABILITIES),
        tokens=least + draw(st.sampled_from([0, 50, 800, 5000])),
        least_tokens=least,
    )


def window(expert: Expert) -> float:
    return expert.context_window or float("inf")


def able(file: ExpertsFile, query: Query) -> set[str]:
    """Who can answer, in other words than the policy's: the capable whose window holds the estimate; where there are none,
    the capable with the largest window, if the prompt may fit into it."""
    capable = {name: expert for name, expert in file.experts.items() if query.needs <= expert.capabilities}
    fitting = {name for name, expert in capable.items() if window(expert) >= query.tokens}
    if fitting or not capable:
        return fitting
    largest = max(map(window, capable.values()))
    return {name for name, expert in capable.items() if window(expert) == largest >= query.least_tokens}
