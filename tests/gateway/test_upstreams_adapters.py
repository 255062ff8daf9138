"""Which adapter an address is asked by, and that litellm is there only where an expert needs it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from gateway.upstreams.adapters import Adapters, adapters_for
from gateway.upstreams.base import Address, FixedAddress, Reply
from gateway.upstreams.custom import CustomAddress
from gateway.upstreams.litellm.failures import Refusal
from gateway.upstreams.litellm.upstream import LiteLLMUpstream, ProviderAddress
from router.experts import Timeouts, parse_experts

FILE = "version: 1\nexperts:\n  one:\n    model: m\n    domains: [code]\n    upstream: {upstream}\n"


class Noted:
    """An upstream that notes what is asked of it."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def start(self) -> None:
        self.calls.append("start")

    async def post(
        self,
        address: Address,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        timeouts: Timeouts,
        fresh: bool = False,
    ) -> Reply:
        self.calls.append(f"post {address.url} {path} {fresh}")
        return Refusal(418, "")

    async def healthy(self, address: Address) -> bool:
        self.calls.append("healthy")
        return True

    async def fetch(self, address: Address, path: str) -> bytes | None:
        self.calls.append("fetch")
        return None

    async def close(self) -> None:
        self.calls.append("close")


async def test_each_address_is_asked_by_the_adapter_of_its_kind() -> None:
    openai, litellm, acme = Noted(), Noted(), Noted()
    adapters = Adapters(openai, litellm, {"acme": acme})
    await adapters.start()
    for address in (FixedAddress("http://h/v1"), ProviderAddress("groq/x"), CustomAddress("acme", "m")):
        assert (await adapters.post(address, "/p", b"{}", {}, Timeouts(), fresh=True)).status == 418
        assert await adapters.healthy(address)
        assert await adapters.fetch(address, "/metrics") is None
    await adapters.close()
    assert openai.calls == ["start", "post http://h/v1 /p True", "healthy", "fetch", "close"]
    assert litellm.calls == ["start", "post litellm:groq/x /p True", "healthy", "fetch", "close"]
    assert acme.calls == ["start", "post acme:m /p True", "healthy", "fetch", "close"]


@pytest.mark.parametrize(
    ("upstream", "needed"), [("{vllm: [http://127.0.0.1:1/v1]}", False), ("{litellm: groq/llama}", True)]
)
def test_litellm_is_there_only_where_an_expert_names_it(upstream: str, needed: bool) -> None:
    adapters = adapters_for(parse_experts(FILE.replace("{upstream}", upstream)))
    assert isinstance(adapters._litellm, LiteLLMUpstream) == needed
