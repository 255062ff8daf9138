from __future__ import annotations

from contextlib import ExitStack
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pool import Pool
from gateway.upstreams.base import FixedAddress
from router.experts import ExpertsFile
from tests.fakes.memory import experts_file


class Worker:
    """A worker's address, before and after it came up."""

    url: str | None = None
    api_key: str | None = None


def small_file() -> ExpertsFile:
    urls = [{"url": "http://a.test/v1"}, {"url": "http://b.test/v1", "weight": 2.5}]
    embedded = {"upstream": {"embedded": "smollm2"}}
    return experts_file({"coder": {"upstream": {"vllm": urls}}, "math": embedded, "bio": embedded})


def test_replicas_are_named_by_their_expert_and_their_place() -> None:
    pool = Pool(small_file(), {"smollm2": Worker()})
    assert [replica.name for replica in pool.all()] == ["coder-0", "coder-1", "math-0", "bio-0"]
    assert [replica.address.url for replica in pool.replicas["coder"]] == ["http://a.test/v1", "http://b.test/v1"]
    assert [replica.weight for replica in pool.all()] == [1.0, 2.5, 1.0, 1.0]


def test_an_experts_key_goes_to_all_of_its_replicas_and_to_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODER_KEY", "k-123")
    upstream = {"vllm": ["http://a.test/v1", "http://b.test/v1"], "api_key": "${CODER_KEY}"}
    pool = Pool(experts_file({"coder": {"upstream": upstream}, "math": {}}), {})
    assert [replica.address.api_key for replica in pool.all()] == ["k-123", "k-123", None]
    assert "k-123" not in repr(pool.all())


def test_experts_that_share_a_worker_share_its_address_but_not_their_replica() -> None:
    worker = Worker()
    pool = Pool(small_file(), {"smollm2": worker})
    (math,), (bio,) = pool.replicas["math"], pool.replicas["bio"]
    assert math is not bio
    assert math.address is bio.address is worker


def test_an_expert_is_ready_while_one_of_its_replicas_may_be_asked() -> None:
    worker = Worker()
    pool = Pool(small_file(), {"smollm2": worker})
    assert not pool.ready("math")
    worker.url = "http://127.0.0.1:1/v1"
    assert pool.ready("math")
    first, second = pool.replicas["coder"]
    first.up = False
    assert pool.ready("coder")
    second.up = False
    assert not pool.ready("coder")


def test_an_expert_is_full_when_it_holds_as_many_requests_as_it_may_over_all_replicas() -> None:
    pool = Pool(experts_file({"coder": {"max_in_flight": 2}, "math": {}}, replicas=2), {})
    first, second = pool.replicas["coder"]
    with pool.holding("coder", first):
        assert not pool.full("coder")
        with pool.holding("coder", second):
            assert pool.full("coder")
            assert not pool.full("math")
        assert not pool.full("coder")


def test_an_expert_without_a_limit_is_never_full() -> None:
    pool = Pool(experts_file({"coder": {}}), {})
    with ExitStack() as held:
        for _ in range(1000):
            held.enter_context(pool.holding("coder", pool.replicas["coder"][0]))
        assert not pool.full("coder")


def test_a_place_is_given_back_when_the_request_fails() -> None:
    heard: list[tuple[str, int]] = []
    pool = Pool(experts_file({"coder": {}}), {}, lambda expert, count: heard.append((expert, count)))
    replica = pool.replicas["coder"][0]

    def fail() -> None:
        with pool.holding("coder", replica):
            assert replica.in_flight == 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert replica.in_flight == 0
    assert heard == [("coder", 1), ("coder", 0)]


@given(st.lists(st.tuples(st.sampled_from(["coder", "math"]), st.integers(0, 1)), max_size=12), st.randoms())
def test_the_counts_are_those_of_the_requests_in_flight_in_whatever_order_they_end(
    requests: list[tuple[str, int]], random: Random
) -> None:
    heard: dict[str, list[int]] = {"coder": [0], "math": [0]}
    pool = Pool(experts_file({"coder": {}, "math": {}}, replicas=2), {}, lambda e, n: heard[e].append(n))
    replicas = [(expert, pool.replicas[expert][i]) for expert, i in requests]
    holds = [(expert, replica, pool.holding(expert, replica)) for expert, replica in replicas]
    for _, _, hold in holds:
        hold.__enter__()
    for name, counts in heard.items():
        assert counts[-1] == sum(r.in_flight for r in pool.replicas[name]) == sum(e == name for e, _ in requests)
    random.shuffle(holds)
    for _, _, hold in holds:
        hold.__exit__(None, None, None)
    assert all(replica.in_flight == 0 for replica in pool.all())
    assert all(counts[-1] == 0 and min(counts) == 0 for counts in heard.values())
    assert all(abs(a - b) == 1 for counts in heard.values() for a, b in pairwise(counts))


def test_an_address_tells_nothing_of_itself() -> None:
    assert "secret" not in repr(FixedAddress("http://secret.test/v1", "secret"))
