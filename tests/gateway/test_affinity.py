from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.affinity import affinity_key, ranked
from gateway.replica import SLOW_SHARE, Replica
from gateway.upstreams.base import FixedAddress


def replica_at(host: str, weight: float = 1.0, name: str = "coder-0") -> Replica:
    return Replica(name, FixedAddress(f"http://{host}.test/v1"), weight)


def key_of(number: int) -> bytes:
    key = affinity_key("session", f"session {number}", None)
    assert key is not None
    return key


KEYS = [key_of(i) for i in range(4000)]
hosts = st.lists(st.integers(0, 999), min_size=2, max_size=8, unique=True)
weights = st.sampled_from([0.5, 1.0, 2.0, 5.0])


def test_a_named_session_goes_before_the_opening() -> None:
    opening = affinity_key("prefix", None, b"[system, user]")
    session = affinity_key("prefix", "s1", b"[system, user]")
    assert len({opening, session, None}) == 3
    assert session == affinity_key("prefix", "s1", b"other") == affinity_key("session", "s1", None)
    assert opening == affinity_key("prefix", "", b"[system, user]")
    assert opening != affinity_key("prefix", None, b"[system, other user]")


def test_a_session_is_not_taken_for_an_opening_of_the_same_bytes() -> None:
    assert affinity_key("prefix", "same", None) != affinity_key("prefix", None, b"same")


@pytest.mark.parametrize(("affinity", "session", "opening"), [
    ("none", "s1", b"x"), ("session", None, b"x"), ("session", "", b"x"), ("prefix", None, None), ("prefix", "", b""),
])  # fmt: skip
def test_where_nothing_ties_a_request_there_is_no_key(
    affinity: str, session: str | None, opening: bytes | None
) -> None:
    assert affinity_key(affinity, session, opening) is None  # type: ignore[arg-type]


@given(st.text(), st.text())
def test_any_session_has_a_key_of_its_own(one: str, other: str) -> None:
    for text in filter(None, (one, other, "\ud800")):
        assert affinity_key("session", text, None) == affinity_key("session", text, None) is not None
    if one and other:
        assert (affinity_key("session", one, None) == affinity_key("session", other, None)) is (one == other)


@given(hosts, st.data())
def test_every_gateway_ranks_alike_in_whatever_order_the_replicas_are_listed(
    names: list[int], data: st.DataObject
) -> None:
    one = [replica_at(f"h{i}", name=f"coder-{at}") for at, i in enumerate(names)]
    listed = data.draw(st.permutations(names))
    other = [replica_at(f"h{i}", name=f"coder-{at}") for at, i in enumerate(listed)]
    for key in KEYS[:50]:
        assert [r.address for r in ranked(key, one)] == [r.address for r in ranked(key, other)]


@given(hosts, st.data())
def test_when_a_replica_goes_only_its_own_share_moves_and_to_its_heirs(names: list[int], data: st.DataObject) -> None:
    all_of_them = [replica_at(f"h{i}", data.draw(weights)) for i in names]
    gone = data.draw(st.sampled_from(all_of_them))
    rest = [replica for replica in all_of_them if replica is not gone]
    for key in KEYS[:200]:
        before, after = ranked(key, all_of_them), ranked(key, rest)
        assert after == [replica for replica in before if replica is not gone]


@given(hosts, st.data())
def test_when_a_replica_is_added_keys_move_to_it_alone(names: list[int], data: st.DataObject) -> None:
    before = [replica_at(f"h{i}", data.draw(weights)) for i in names]
    new = replica_at("new", data.draw(weights))
    moved = [key for key in KEYS[:300] if ranked(key, before)[0] is not ranked(key, [*before, new])[0]]
    assert all(ranked(key, [*before, new])[0] is new for key in moved)


@given(hosts, st.data())
def test_when_a_replica_gets_less_only_keys_of_its_own_move(names: list[int], data: st.DataObject) -> None:
    replicas = [replica_at(f"h{i}") for i in names]
    slow = data.draw(st.sampled_from(replicas))
    before = {key: ranked(key, replicas)[0] for key in KEYS[:200]}
    slow.slow = True
    assert all(ranked(key, replicas)[0] is owner or owner is slow for key, owner in before.items())


@pytest.mark.parametrize("shares", [[1.0, 1.0, 1.0], [1.0, 2.0, 5.0], [0.1, 0.3]])
def test_each_owns_its_share_of_all_keys(shares: list[float]) -> None:
    replicas = [replica_at(f"h{i}", weight) for i, weight in enumerate(shares)]
    owned = Counter(ranked(key, replicas)[0].address for key in KEYS)
    for replica in replicas:
        # Four standard deviations of a count of 4,000 are at most 127.
        assert abs(owned[replica.address] - len(KEYS) * replica.weight / sum(shares)) < 130


def test_a_slow_one_owns_less() -> None:
    replicas = [replica_at(f"h{i}") for i in range(2)]
    replicas[0].slow = True
    owned = Counter(ranked(key, replicas)[0].address for key in KEYS)
    assert abs(owned[replicas[0].address] - len(KEYS) * SLOW_SHARE / (1 + SLOW_SHARE)) < 130


def test_a_worker_is_known_by_its_name_as_its_port_is_another_after_each_start() -> None:
    class Worker:
        url: str | None = "http://127.0.0.1:1/v1"
        api_key = None

    one, two = Replica("coder-0", Worker()), Replica("coder-0", Worker())
    two.address.url = "http://127.0.0.1:2/v1"  # type: ignore[misc]
    assert one.identity == two.identity
