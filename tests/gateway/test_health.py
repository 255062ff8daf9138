from __future__ import annotations

import asyncio
import logging
import random

import pytest

from gateway.health import JITTER, PROBES_TO_HANG, STALE_INTERVALS, HealthLoop
from gateway.load import Load
from gateway.replica import Replica, State
from gateway.upstreams.base import Address, FixedAddress
from tests.fakes.memory import FakeUpstream, SkippingLoop
from tests.fakes.upstream import PATIENCE

METRICS = b'vllm:num_requests_running{engine="0"} 4.0\nvllm:num_requests_waiting{engine="0"} 1.0\n'


class Worker:
    """A worker's address; `url` is None while it is not up."""

    api_key: str | None = None

    def __init__(self, url: str | None) -> None:
        self.url = url


def replica_at(address: Address | None = None, name: str = "coder-0", metered: bool = False) -> Replica:
    return Replica(name, address or FixedAddress(f"http://{name}.test/v1"), metered=metered, clock=lambda: 1000.0)


async def test_a_probe_decides_whether_a_replica_may_be_asked() -> None:
    upstream, replica = FakeUpstream(), replica_at()
    loop = HealthLoop(upstream, [replica], interval=60)
    assert replica.up is None
    upstream.well = False
    await loop.probe()
    assert replica.state is State.DOWN
    upstream.well = True
    await loop.probe()
    assert replica.up is True
    assert replica.available


async def test_experts_that_share_an_address_share_one_probe() -> None:
    upstream, shared = FakeUpstream(well=False), Worker("http://shared.test/v1")
    one, two = (replica_at(FixedAddress("http://lora.test/v1")) for _ in range(2))
    replicas = [replica_at(shared), replica_at(shared), replica_at(), one, two]
    await HealthLoop(upstream, replicas, interval=60).probe()
    assert sorted(map(str, upstream.probes)) == [
        "http://coder-0.test/v1", "http://lora.test/v1", "http://shared.test/v1"
    ]  # fmt: skip
    assert [replica.up for replica in replicas] == [False] * 5


async def test_one_address_with_two_keys_is_probed_with_each() -> None:
    upstream = FakeUpstream()
    replicas = [replica_at(FixedAddress("http://lora.test/v1", key)) for key in ("a", "b")]
    await HealthLoop(upstream, replicas, interval=60).probe()
    assert len(upstream.probes) == 2


async def test_all_addresses_are_probed_at_once() -> None:
    together = asyncio.Barrier(3)

    class Together(FakeUpstream):
        async def healthy(self, address: Address) -> bool:
            return await together.wait() >= 0

    replicas = [replica_at(name=f"coder-{i}") for i in range(3)]
    async with asyncio.timeout(PATIENCE):
        await HealthLoop(Together(), replicas, interval=60).probe()
    assert all(replica.up for replica in replicas)


class Counting(FakeUpstream):
    """Sets `often` after so many probes of an address; one called `stuck` hangs, one called `broken` fails."""

    def __init__(self, enough: int = 3) -> None:
        super().__init__()
        self.enough, self.often = enough, asyncio.Event()

    async def healthy(self, address: Address) -> bool:
        url = address.url or ""
        self.probes.append(url)
        if self.probes.count("http://well.test/v1") >= self.enough:
            self.often.set()
        if "stuck" in url:
            await asyncio.Event().wait()
        if "broken" in url:
            raise RuntimeError("an adapter's fault")
        return True


async def test_the_loop_probes_until_it_is_stopped() -> None:
    upstream = Counting()
    loop = HealthLoop(upstream, [replica_at(name="well")], interval=0.001)
    before = asyncio.all_tasks()
    loop.start()
    async with asyncio.timeout(PATIENCE):
        await upstream.often.wait()
    await loop.stop()
    assert asyncio.all_tasks() == before
    probed = len(upstream.probes)
    await asyncio.sleep(0.01)
    assert len(upstream.probes) == probed


async def test_a_probe_that_hangs_delays_no_other_and_the_loop_still_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.health.PROBE_SECONDS", 3600.0)  # it is not given up
    upstream = Counting(enough=5)
    replicas = [replica_at(name="stuck"), replica_at(name="well")]
    loop = HealthLoop(upstream, replicas, interval=0.001)
    loop.start()
    async with asyncio.timeout(PATIENCE):
        await upstream.often.wait()
        await loop.stop()
    assert upstream.probes.count("http://stuck.test/v1") == 1


def test_a_probe_that_hangs_counts_as_failed_in_the_end() -> None:
    replicas = [replica_at(name="stuck"), replica_at(name="well")]

    async def probe() -> None:
        await HealthLoop(Counting(), replicas, interval=60).probe()

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(probe())
    assert [replica.up for replica in replicas] == [False, True]


async def test_an_adapter_that_fails_is_logged_and_ends_no_loop(caplog: pytest.LogCaptureFixture) -> None:
    upstream, broken = Counting(), replica_at(name="broken")
    loop = HealthLoop(upstream, [broken, replica_at(name="well")], interval=0.001)
    with caplog.at_level(logging.CRITICAL + 1, "moe_gateway"):
        loop.start()
        async with asyncio.timeout(PATIENCE):
            await upstream.often.wait()
            while upstream.probes.count("http://broken.test/v1") < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        await loop.stop()
    assert broken.up is False


async def test_what_is_told_of_a_round_may_fail_and_the_next_round_comes(caplog: pytest.LogCaptureFixture) -> None:
    rounds, often = 0, asyncio.Event()

    def fail() -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 3:
            often.set()
        raise KeyError

    loop = HealthLoop(FakeUpstream(), [replica_at()], interval=0.001, on_round=fail)
    with caplog.at_level(logging.CRITICAL + 1, "moe_gateway"):
        loop.start()
        async with asyncio.timeout(PATIENCE):
            await often.wait()
        await loop.stop()


def test_gateways_that_start_together_do_not_probe_in_step() -> None:
    async def times(seed: int) -> list[float]:
        upstream, seen = FakeUpstream(), list[float]()
        clock = asyncio.get_running_loop().time
        chance = random.Random(seed)  # noqa: S311
        loop = HealthLoop(
            upstream, [replica_at()], interval=10, chance=chance, on_round=lambda: seen.append(clock())
        )  # fmt: skip
        loop.start()
        began = clock()
        while len(seen) < 6:  # noqa: ASYNC110
            await asyncio.sleep(1)
        await loop.stop()
        return [b - a for a, b in zip([began, *seen], seen, strict=False)]

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        one, two = runner.run(times(1)), runner.run(times(2))
    assert all(10 * (1 - JITTER) - 0.1 <= gap <= 10 * (1 + JITTER) + 0.5 for gap in one + two)
    assert max(one) - min(one) > 0.1
    assert max(abs(a - b) for a, b in zip(one, two, strict=True)) > 0.1


async def test_stopping_a_loop_that_never_began_does_nothing() -> None:
    await HealthLoop(FakeUpstream(), [], interval=60).stop()


async def test_one_that_is_there_and_does_not_answer_is_told_of_as_hung_and_again_later() -> None:
    upstream, hung = FakeUpstream(well=False), list[Address]()
    worker, gone = Worker("http://worker.test/v1"), Worker(None)
    loop = HealthLoop(upstream, [replica_at(worker), replica_at(gone)], interval=60, on_hung=hung.append)
    for _ in range(PROBES_TO_HANG - 1):
        await loop.probe()
    assert hung == []
    await loop.probe()
    assert hung == [worker]
    for _ in range(PROBES_TO_HANG):
        await loop.probe()
    assert hung == [worker, worker]


async def test_a_probe_that_goes_well_is_an_end_to_the_count() -> None:
    upstream, hung = FakeUpstream(well=False), list[Address]()
    loop = HealthLoop(upstream, [replica_at(Worker("http://worker.test/v1"))], interval=60, on_hung=hung.append)
    for _ in range(3):
        for _ in range(PROBES_TO_HANG - 1):
            await loop.probe()
        upstream.well = True
        await loop.probe()
        upstream.well = False
    assert hung == []


# What the servers say of their load.


async def test_a_vllm_server_is_asked_for_its_load_which_is_believed_for_a_few_intervals() -> None:
    upstream, replica = FakeUpstream(metrics=METRICS), replica_at(metered=True)
    replica.in_flight = 2
    await HealthLoop(upstream, [replica], interval=10).probe()
    assert replica.load == Load(running=4, waiting=1)
    assert replica.load_others == 3
    assert replica.load_until == replica.clock() + STALE_INTERVALS * 10


@pytest.mark.parametrize(("well", "metered", "metrics"), [
    (False, True, METRICS), (True, False, METRICS), (True, True, None), (True, True, b"llamacpp:x 1\n"),
])  # fmt: skip
async def test_no_load_is_known_of_one_that_is_down_is_no_vllm_or_says_nothing(
    well: bool, metered: bool, metrics: bytes | None
) -> None:
    replica = replica_at(metered=metered)
    await HealthLoop(FakeUpstream(well=well, metrics=metrics), [replica], interval=10).probe()
    assert replica.load is None


async def test_experts_of_one_server_share_its_reading() -> None:
    address = FixedAddress("http://lora.test/v1")
    replicas = [replica_at(address, f"lora{i}-0", metered=True) for i in range(2)]
    replicas[0].in_flight = 5
    await HealthLoop(FakeUpstream(metrics=METRICS), replicas, interval=10).probe()
    assert [replica.load_others for replica in replicas] == [0, 5]  # the other's requests are others' to each


async def test_who_asks_is_told_after_each_address() -> None:
    rounds: list[list[bool | None]] = []
    replicas = [replica_at(name=f"coder-{i}") for i in range(2)]
    loop = HealthLoop(
        FakeUpstream(), replicas, interval=60, on_round=lambda: rounds.append([r.up for r in replicas])
    )  # fmt: skip
    await loop.probe()
    assert len(rounds) == 2
    assert rounds[-1] == [True, True]
