"""A package's observer inside a running gateway, and its upstream: neither can take anything else with it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway import observing
from gateway.exchange import Outcome
from gateway.observing import OBSERVERS
from gateway.upstreams.base import UpstreamError
from gateway.upstreams.custom import UPSTREAMS
from tests.fakes.memory import FakeUpstream
from tests.fakes.packages import Install, installer
from tests.fakes.upstream import FakeServer
from tests.integration.conftest import Running, Start, experts_yaml

TOLD = "moe_observer_receipts_total"


class Odd:
    """Hangs at the first receipt, or raises at each."""

    def __init__(self, held: threading.Event | None) -> None:
        self._held = held

    def observe(self, receipt: Any) -> None:
        if self._held is None:
            raise OSError("the disk is full")
        self._held.wait(60)

    def close(self) -> None: ...


@pytest.fixture
def held() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def install(tmp_path: Path) -> Iterator[Install]:
    yield from installer(tmp_path / "site")


def asked(gateway: Running, model: str = "one") -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
    return httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=30)


def test_an_observer_that_hangs_and_one_that_raises_hurt_nobody(
    start: Start, servers: list[FakeServer], held: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observing, "END_SECONDS", 0.1)
    with OBSERVERS.lending("hangs", lambda: Odd(held)), OBSERVERS.lending("raises", lambda: Odd(None)):
        gateway = start(experts_yaml(servers[0]), observers=("hangs", "raises"))
        assert [asked(gateway).status_code for _ in range(5)] == [200] * 5
        assert gateway.settled(TOLD, 5, observer="raises", outcome="failed")
        assert gateway.metric(TOLD, observer="hangs") == 0


def test_an_upstream_that_raises_fails_its_expert_and_another_answers(
    start: Start, servers: list[FakeServer], install: Install
) -> None:
    class Broken(FakeUpstream):
        async def post(self, *_: Any, **__: Any) -> Any:
            raise errors.pop(0)

    errors = [RuntimeError("at http://10.1.2.3"), UpstreamError(Outcome.TIMEOUT, "it was late"), RuntimeError("again")]
    install("acme", "moe_gateway.upstreams", {"acme": "acme:Broken"}, {"acme.py": ""})  # for who reads experts.yaml
    with UPSTREAMS.lending("acme", Broken):
        text = experts_yaml(servers[0]).replace(
            "experts:", "experts:\n  odd: {model: m, domains: [code], fallbacks: [one], upstream: {custom: acme}}"
        )
        gateway = start(text)
        answers = [asked(gateway, "odd") for _ in range(2)]
    assert [(a.status_code, a.headers["x-moe-expert"], a.headers["x-moe-reason"]) for a in answers] == [
        (200, "one", "fallback")
    ] * 2
    assert gateway.settled("moe_fallbacks_total", 1, from_expert="odd", reason="server_error")
    assert gateway.settled("moe_fallbacks_total", 1, from_expert="odd", reason="timeout")
    assert "10.1.2.3" not in "".join(answer.text for answer in answers)
