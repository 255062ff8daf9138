"""What a package's upstream may do, and what becomes of one that does otherwise. A whole package: tests/docs/test_packages.py."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gateway.exchange import Outcome
from gateway.pool import Pool
from gateway.serves import Serves
from gateway.upstreams import custom
from gateway.upstreams.base import Address, UpstreamError
from gateway.upstreams.custom import FAILED, UPSTREAMS, CustomAddress, CustomUpstream
from router.errors import ConfigError
from router.experts import Timeouts, parse_experts
from tests.fakes.memory import FakeReply, FakeUpstream, Hang
from tests.fakes.packages import Install, installer

ADDRESS = CustomAddress("acme", "m", "http://10.1.2.3:99/api", "secret-key")
SECRETS = ("10.1.2.3", "secret-key")
Raise = Callable[[], Exception]


@dataclass
class Scripted(FakeUpstream):
    """Answers with `reply`, or raises what is there in its place."""

    reply: Any = None
    starting: Exception | None = None
    probing: Any = True
    closing: Exception | None = None
    seen: list[Address] = field(default_factory=list)

    async def start(self) -> None:
        if self.starting:
            raise self.starting

    async def post(
        self,
        address: Address,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        timeouts: Timeouts,
        fresh: bool = False,
    ) -> Any:
        self.seen.append(address)
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply

    async def healthy(self, address: Address) -> bool:
        if isinstance(self.probing, Exception):
            raise self.probing
        if isinstance(self.probing, Hang):
            await FakeReply(Hang()).read()
        well: bool = self.probing  # which a package's may not be
        return well

    async def close(self) -> None:
        if self.closing:
            raise self.closing


class Text(FakeReply):
    """An answer that is not in bytes."""

    async def chunks(self) -> AsyncIterator[Any]:
        yield "text"


async def started(scripted: FakeUpstream) -> CustomUpstream:
    upstream = CustomUpstream("acme")
    with UPSTREAMS.lending("acme", lambda: scripted):
        await upstream.start()
    return upstream


async def failure(scripted: Scripted) -> UpstreamError:
    """What a request to it comes to, the reading of its answer included."""
    upstream = await started(scripted)
    try:
        reply = await upstream.post(ADDRESS, "/chat/completions", b"{}", {}, Timeouts())
        async for _ in reply.chunks():
            pass
    except UpstreamError as error:
        return error
    raise AssertionError("it answered")


async def test_what_it_answers_passes_as_it_is() -> None:
    reply = FakeReply(b"one", b"two", headers={"Content-Type": "text/event-stream"})
    scripted = Scripted(reply=reply)
    upstream = await started(scripted)
    answer = await upstream.post(ADDRESS, "/chat/completions", b"{}", {}, Timeouts())
    assert (answer.status, answer.headers) == (200, {"content-type": "text/event-stream"})
    assert [chunk async for chunk in answer.chunks()] == [b"one", b"two"]
    assert await answer.read() == b"onetwo"
    answer.close()
    assert (scripted.seen, reply.closed) == ([ADDRESS], 1)
    assert await upstream.fetch(ADDRESS, "/metrics") is None


@pytest.mark.parametrize(
    ("reply", "outcome", "says"),
    [
        (UpstreamError(Outcome.TIMEOUT, "it was late"), Outcome.TIMEOUT, "it was late"),
        (UpstreamError(Outcome.CONNECT_ERROR, f"not {ADDRESS.url}, secret-key"), Outcome.CONNECT_ERROR, "not …, …"),
        (RuntimeError("secret-key at 10.1.2.3"), Outcome.SERVER_ERROR, FAILED),
        (None, Outcome.SERVER_ERROR, FAILED),
        (FakeReply(b"a", ValueError("secret-key")), Outcome.STREAM_ERROR, FAILED),
        (FakeReply(b"a", UpstreamError(Outcome.TRUNCATED, "it broke off")), Outcome.TRUNCATED, "it broke off"),
        (Text(), Outcome.STREAM_ERROR, FAILED),
    ],
)  # fmt: skip
async def test_what_it_raises_is_a_failure_of_its_expert_and_tells_no_secret(
    caplog: pytest.LogCaptureFixture, reply: Any, outcome: Outcome, says: str
) -> None:
    error = await failure(Scripted(reply=reply))
    assert (error.outcome, str(error)) == (outcome, says)
    ours = says == FAILED  # then the log has more
    assert [(r.getMessage(), r.__dict__["by"]) for r in caplog.records] == [("an upstream failed", "acme")] * ours


async def test_a_whole_answer_that_cannot_be_read_is_a_failure() -> None:
    upstream = await started(Scripted(reply=FakeReply(KeyError("x"))))
    reply = await upstream.post(ADDRESS, "/chat/completions", b"{}", {}, Timeouts())
    with pytest.raises(UpstreamError) as caught:
        await reply.read()
    assert (caught.value.outcome, str(caught.value)) == (Outcome.TRUNCATED, FAILED)


@pytest.mark.parametrize("starting", [OSError("no library"), SystemError("no")])
async def test_one_that_cannot_start_leaves_its_experts_out(
    caplog: pytest.LogCaptureFixture, starting: Exception
) -> None:
    upstream = await started(Scripted(starting=starting))
    assert not await upstream.healthy(ADDRESS)
    with pytest.raises(UpstreamError, match=f"its package cannot be used: {type(starting).__name__}"):
        await upstream.post(ADDRESS, "/chat/completions", b"{}", {}, Timeouts())
    await upstream.close()
    assert [r.getMessage() for r in caplog.records] == ["an upstream cannot be used: its experts are left out"]


async def test_one_whose_package_is_gone_leaves_its_experts_out(caplog: pytest.LogCaptureFixture) -> None:
    upstream = CustomUpstream("nobody-adds-this")
    await upstream.start()
    assert not await upstream.healthy(ADDRESS)
    assert [r.levelno for r in caplog.records] == [logging.ERROR]


@pytest.mark.parametrize(
    ("probing", "well"), [(True, True), (False, False), (1, True), (ValueError("x"), False), (Hang(), False)]
)
async def test_a_probe_is_well_where_it_says_so_in_time(
    monkeypatch: pytest.MonkeyPatch, probing: Any, well: bool
) -> None:
    monkeypatch.setattr(custom, "PROBE_SECONDS", 0.05)
    assert await (await started(Scripted(probing=probing))).healthy(ADDRESS) is well


async def test_one_that_cannot_be_closed_holds_up_nobody(caplog: pytest.LogCaptureFixture) -> None:
    await (await started(Scripted(closing=RuntimeError("no")))).close()
    assert [r.getMessage() for r in caplog.records] == ["an upstream could not be closed"]


async def test_a_reply_that_cannot_be_closed_holds_up_nobody(caplog: pytest.LogCaptureFixture) -> None:
    class Stuck(FakeReply):
        def close(self) -> None:
            raise RuntimeError("no")

        async def chunks(self) -> AsyncIterator[bytes]:
            yield b"a"

    reply = await (await started(Scripted(reply=Stuck()))).post(ADDRESS, "/p", b"{}", {}, Timeouts())
    reply.close()
    assert [r.getMessage() for r in caplog.records] == ["an upstream failed"]


def test_an_address_shows_no_key() -> None:
    assert "secret-key" not in repr(ADDRESS)
    assert CustomAddress("acme", "m").url == "acme:m"


@pytest.fixture
def install(tmp_path: Path) -> Iterator[Install]:
    yield from installer(tmp_path)


def test_an_expert_of_a_package_has_an_address_and_can_do_what_is_declared(install: Install) -> None:
    install("acme", "moe_gateway.upstreams", {"acme": "acme:Acme"}, {"acme.py": ""})
    upstream = "{custom: acme, base_url: http://10.1.2.3:99/api}"
    file = parse_experts(
        f"version: 1\nexperts:\n  a: {{model: m, domains: [code], capabilities: [tools], upstream: {upstream}}}\n"
    )
    (replica,) = Pool(file, {}).replicas["a"]
    assert replica.address == CustomAddress("acme", "m", "http://10.1.2.3:99/api")
    assert file.experts["a"].able == {"tools"}
    assert Serves(file.experts).of("a") == {"chat"}


def test_a_name_that_no_package_adds_is_an_error_at_its_place() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_experts(
            "version: 1\nexperts:\n  a:\n    model: m\n    domains: [code]\n    upstream: {custom: acme-nothing}\n"
        )
    (problem,) = caught.value.problems
    assert (problem.line, problem.column, problem.key) == (6, 24, "experts.a.upstream.custom")
    assert problem.message.startswith("no upstream 'acme-nothing' is installed")


@pytest.mark.parametrize(
    ("upstream", "says"),
    [
        ("{custom: acme, vllm: [http://h/v1]}", "give exactly one of"),
        ("{custom: acme, adapter: lora}", "an adapter goes with vLLM alone"),
        ("{custom: Acme One}", "pattern"),
        ("{vllm: [http://h/v1], base_url: http://h}", "base_url goes with litellm and custom alone"),
    ],
)
def test_what_does_not_go_with_it_is_refused(upstream: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_experts(f"version: 1\nexperts:\n  a:\n    model: m\n    domains: [code]\n    upstream: {upstream}\n")
