"""Experts that are never chosen, or by chance, and names that mislead."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.checking.choosing import alias_hides, equal_experts, floor_too_high, never_chosen, stand_in
from tests.gateway.checking.files import places, said

LAST = {"domains": {"general": 0.9}}


def test_two_that_are_equal_in_all_are_told_at_the_second() -> None:
    warned = said(equal_experts, {"last": LAST, "a": {"model": "x"}, "b": {"model": "x"}})
    assert places(warned) == ["equal-experts experts.b"]
    assert "equal to a" in warned[0].words
    assert "replicas" in warned[0].words
    assert "replicas" not in said(equal_experts, {"last": LAST, "a": {}, "b": {}})[0].words


@pytest.mark.parametrize("other", [
    {"domains": {"general": 0.51}}, {"price": {"input": 1, "output": 2}}, {"context_window": 4096},
    {"capabilities": ["tools"]}, {"languages": ["ja"]}, {"endpoints": ["chat"]},
])  # fmt: skip
def test_whatever_routing_looks_at_makes_them_differ(other: dict[str, Any]) -> None:
    assert said(equal_experts, {"last": LAST, "a": {}, "b": other}) == []


def cheap(quality: float, price: float = 1, **changes: Any) -> dict[str, Any]:
    return {"domains": {"code": quality}, "price": {"input": price, "output": price}, **changes}


def test_one_that_another_beats_everywhere_at_no_higher_price_is_told() -> None:
    warned = said(never_chosen, {"last": LAST, "good": cheap(0.9), "bad": cheap(0.8, 2)})
    assert places(warned) == ["never-chosen experts.bad"]
    assert warned[0].words.startswith("good is")
    assert places(said(never_chosen, {"last": LAST, "good": cheap(0.9), "dear": cheap(0.9, 2)})) == [
        "never-chosen experts.dear"
    ]
    unpriced = cheap(0.8) | {"price": None}
    assert places(said(never_chosen, {"last": LAST, "good": cheap(0.9), "bad": unpriced})) == [
        "never-chosen experts.bad"
    ]


@pytest.mark.parametrize("other", [
    cheap(0.8, 0.5),  # auto:cheap may take it
    cheap(0.8, 2, capabilities=["tools"]),
    cheap(0.8, 2, context_window=9000),
    cheap(0.8, 2, languages=["ja"]),
    cheap(0.8, 2, endpoints=["embeddings"]),
    {"domains": {"code": 0.8, "math": 0.5}, "price": {"input": 2, "output": 2}},
    cheap(0.9),  # equal: said by equal_experts
])  # fmt: skip
def test_one_that_has_something_of_its_own_is_not(other: dict[str, Any]) -> None:
    good = cheap(0.9, context_window=8000)
    assert said(never_chosen, {"last": LAST, "good": good, "other": {"context_window": 8000, **other}}) == []
    worse = cheap(0.8, 2, context_window=8000)  # what the others would be without what they have of their own
    assert len(said(never_chosen, {"last": LAST, "good": good, "other": worse})) == 1


def test_one_that_something_else_leads_to_is_not() -> None:
    experts = {"last": LAST, "good": cheap(0.9, fallbacks=["spare"]), "spare": cheap(0.9, 2)}
    assert said(never_chosen, experts) == []
    experts = {"last": LAST, "good": cheap(0.9), "old": cheap(0.8, 2)}
    assert said(never_chosen, experts, aliases={"gpt-4": "old"}) == []
    assert said(never_chosen, experts, router={"fallback": "old"}) == []


@pytest.mark.parametrize(("floor", "experts", "told"), [(0.96, 2, 1), (1.0, 2, 1), (0.95, 2, 0), (1.0, 1, 0)])
def test_a_floor_that_hardly_anything_reaches_is_told(floor: float, experts: int, told: int) -> None:
    names: dict[str, Any] = {name: {} for name in ("a", "b")[:experts]}
    assert len(said(floor_too_high, names, router={"confidence_floor": floor})) == told


@pytest.mark.parametrize(("alias", "target", "told"), [
    ("model-of-a", "b", True), ("model-of-a", "a", False), ("model-of-a", "auto", False),
    ("A", "b", True), ("A", "a", False), ("gpt-4o", "b", False),
])  # fmt: skip
def test_an_alias_that_leads_elsewhere_than_its_name_says_is_told(alias: str, target: str, told: bool) -> None:
    warned = said(alias_hides, {"a": {}, "b": {}}, aliases={alias: target})
    assert places(warned) == [f"alias-hides aliases.{alias}"] * told


def test_stand_ins_are_told_beside_real_experts_alone() -> None:
    small = {"upstream": {"embedded": "smollm2"}}
    assert places(said(stand_in, {"a": small, "b": {}})) == ["stand-in experts.a.upstream"]
    assert said(stand_in, {"a": small, "b": small}) == []
    assert said(stand_in, {"a": {}, "b": {}}) == []
