"""Experts that nobody stands in for, or nobody who could."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.checking.fallbacks import fallback_beside_it, fallback_circle, fallback_weaker, no_fallback
from tests.gateway.checking.files import places, said


def to(*names: str, **changes: Any) -> dict[str, Any]:
    return {"fallbacks": list(names), **changes}


def test_an_expert_without_fallbacks_is_told_and_the_fallback_itself_is_not() -> None:
    warned = said(no_fallback, {"coder": {"domains": ["code"]}, "last": {}})
    assert places(warned) == ["no-fallback experts.coder"]
    assert "fallbacks: [last]" in warned[0].words
    assert said(no_fallback, {"coder": to("last", domains=["code"]), "last": {}}) == []


def test_an_expert_that_is_alone_has_nobody() -> None:
    assert "the only expert" in said(no_fallback, {"one": {}})[0].words


@pytest.mark.parametrize(("experts", "told"), [
    ({"a": to("b"), "b": to("a"), "last": {}}, ["fallback-circle experts.a.fallbacks"]),
    ({"a": to("b"), "b": to("c"), "c": to("a"), "last": {}}, ["fallback-circle experts.a.fallbacks"]),
    ({"a": to("b"), "b": to("a"), "c": to("d"), "d": to("c"), "last": {}},
     ["fallback-circle experts.a.fallbacks", "fallback-circle experts.c.fallbacks"]),
    ({"a": to("b"), "b": to("a", "last"), "last": {}}, []),
    ({"a": to("last"), "last": to("a")}, []),
    ({"a": to("b"), "b": to("last"), "last": {}}, []),
])  # fmt: skip
def test_fallbacks_that_lead_to_each_other_alone_are_told_once(experts: dict[str, Any], told: list[str]) -> None:
    assert places(said(fallback_circle, experts, router={"fallback": "last"})) == told


def test_fallbacks_that_can_do_less_are_told() -> None:
    tools = {"capabilities": ["tools", "json_schema"]}
    warned = said(fallback_weaker, {"a": to("b", "c", **tools), "b": {}, "c": {"capabilities": ["json_schema"]}})
    assert places(warned) == ["fallback-weaker experts.a.fallbacks"]
    assert "has tools:" in warned[0].words
    assert said(fallback_weaker, {"a": to("b", "c", **tools), "b": {}, "c": tools}) == []
    assert said(fallback_weaker, {"a": tools, "b": {}}) == []  # no-fallback says that


def test_fallbacks_on_the_servers_of_the_expert_are_told_where_there_are_others() -> None:
    base = {"upstream": {"vllm": ["http://one/v1"]}}
    sql = {"upstream": {"vllm": ["http://one/v1"], "adapter": "sql"}}
    warned = said(fallback_beside_it, {"base": base, "sql": to("base", **sql), "far": {}})
    assert places(warned) == ["fallback-beside-it experts.sql.fallbacks"]
    assert "such as far" in warned[0].words
    assert said(fallback_beside_it, {"base": base, "sql": to("base", **sql)}) == []
    assert said(fallback_beside_it, {"base": base, "sql": to("base", "far", **sql), "far": {}}) == []
    launched: dict[str, Any] = {"upstream": {"launch": {}}}
    adapter = {"upstream": {"worker": "base", "adapter": {"name": "sql", "path": "/sql"}}}
    assert len(said(fallback_beside_it, {"base": launched, "sql": to("base", **adapter), "far": {}})) == 1
