"""Addresses and workers that will not do as they are written."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.checking.upstreams import addresses, without_effect, workers
from tests.gateway.checking.files import places, said


def at(*urls: str, **changes: Any) -> dict[str, Any]:
    return {"upstream": {"vllm": list(urls), **changes}}


@pytest.mark.parametrize(("url", "told"), [
    ("http://coder:8000", True), ("http://coder:8000/", True), ("http://coder:8000/v1", False), ("https://x.ai/api", False)
])  # fmt: skip
def test_an_address_without_a_path_is_told(url: str, told: bool) -> None:
    warned = said(addresses, {"one": at("http://other/v1", url)})
    assert places(warned) == ["address-without-v1 experts.one.upstream.vllm.1"] * told


def test_a_replica_that_stands_twice_is_told_at_the_second() -> None:
    assert places(said(addresses, {"one": at("http://a/v1", "http://b/v1", "http://a/v1/")})) == [
        "replica-twice experts.one.upstream.vllm.2"
    ]


@pytest.mark.parametrize(("url", "told"), [
    ("http://api.example.com/v1", True), ("http://8.8.8.8/v1", True), ("https://api.example.com/v1", False),
    ("http://10.0.0.5:8000/v1", False), ("http://[::1]/v1", False), ("http://coder:8000/v1", False),
    ("http://coder.models.svc/v1", False), ("http://box.local/v1", False),
])  # fmt: skip
def test_a_key_that_crosses_foreign_networks_unencrypted_is_told(
    url: str, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONE_KEY", "k")
    warned = said(addresses, {"one": at(url, api_key="${ONE_KEY}")})
    assert places(warned) == ["key-in-the-clear experts.one.upstream.vllm.0"] * told
    assert said(addresses, {"one": at(url)}) == []


def test_settings_that_come_to_nothing_are_told() -> None:
    one, two = at("http://a/v1"), at("http://a/v1", "http://b/v1")
    assert places(said(without_effect, {"x": one | {"hedge": "p95"}})) == ["without-effect experts.x.hedge"]
    assert said(without_effect, {"x": two | {"hedge": "p95"}}) == []
    assert said(without_effect, {"x": {"upstream": {"launch": {"replicas": 2}}, "hedge": "2s"}}) == []
    late = {"timeouts": {"total": "10s", "first_byte": "20s"}}
    assert places(said(without_effect, {"x": late})) == ["without-effect experts.x.timeouts.first_byte"]
    assert said(without_effect, {"x": {"timeouts": {"total": "10s"}}}) == []


def test_tools_of_a_worker_that_is_launched_without_a_parser_are_told() -> None:
    def tools(args: str) -> dict[str, Any]:
        return {"upstream": {"launch": {"args": args}}, "capabilities": ["tools"]}

    assert places(said(workers, {"x": tools("")})) == ["tools-without-parser experts.x.capabilities"]
    assert said(workers, {"x": tools("--enable-auto-tool-choice --tool-call-parser hermes")}) == []
    assert said(workers, {"x": {"upstream": {"launch": {}}}}) == []
    assert said(workers, {"x": {"capabilities": ["tools"]}}) == []
    adapter = {"upstream": {"worker": "x", "adapter": {"name": "a", "path": "/a"}}, "capabilities": ["tools"]}
    assert len(said(workers, {"x": {"upstream": {"launch": {}}}, "y": adapter})) == 1


def on(*gpus: int, args: str = "", replicas: int = 1, **changes: Any) -> dict[str, Any]:
    return {"upstream": {"launch": {"gpus": list(gpus), "args": args, "replicas": replicas}}, **changes}


@pytest.mark.parametrize(("experts", "told"), [
    ({"a": on(0), "b": on(0)}, 1),
    ({"a": on(0), "b": on(1)}, 0),
    ({"a": on(0, replicas=2)}, 1),
    ({"a": on(0, 1), "b": on(1, 0)}, 1),
    ({"a": on(0, sleep_after="1m"), "b": on(0, sleep_after="1m")}, 0),
    ({"a": on(0, sleep_after="1m"), "b": on(0)}, 1),
    ({"a": on(0, args="--gpu-memory-utilization 0.5"), "b": on(0, args="--gpu-memory-utilization=0.5")}, 0),
    ({"a": on(0, args="--gpu-memory-utilization 0.5"), "b": on(0, args="--gpu-memory-utilization=0.51")}, 1),
    ({"a": on(0, args="--gpu-memory-utilization x"), "b": on(0, args="--gpu-memory-utilization=0.05")}, 0),
    ({"a": {}, "b": {"upstream": {"launch": {}}}}, 0),
])  # fmt: skip
def test_gpus_that_hold_less_than_is_awake_on_them_are_told_once(experts: dict[str, Any], told: int) -> None:
    warned = said(workers, experts)
    assert [w.code for w in warned] == ["gpu-crowded"] * told
