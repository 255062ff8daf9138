from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.outliers import LEAST_SECONDS, SLOW_RATIO, WELL_RATIO, judge
from gateway.replica import FIRST_TOKEN_SECONDS, FIRST_TOKENS_KEPT, LEAST_FIRST_TOKENS, Replica
from gateway.upstreams.base import FixedAddress

NOW = 1000.0


def replicas_with(*medians: float | None, samples: int = LEAST_FIRST_TOKENS) -> list[Replica]:
    """Replicas whose first tokens all came after so many seconds; None where there were none."""
    replicas = []
    for i, seconds in enumerate(medians):
        replica = Replica(f"coder-{i}", FixedAddress(f"http://coder-{i}.test/v1"), clock=lambda: NOW)
        if seconds is not None:
            replica.first_tokens.extend([(NOW, seconds)] * samples)
        replicas.append(replica)
    return replicas


def slow(replicas: list[Replica]) -> list[int]:
    return [i for i, replica in enumerate(replicas) if replica.slow]


def test_one_much_slower_than_its_siblings_is_slow_and_told_of_once() -> None:
    replicas = replicas_with(0.2, 0.25 * SLOW_RATIO + 0.1, 0.3)
    assert list(judge(replicas, NOW)) == [replicas[1]]
    assert slow(replicas) == [1]
    assert list(judge(replicas, NOW)) == []
    assert slow(replicas) == [1]


def test_one_not_so_much_slower_is_not() -> None:
    replicas = replicas_with(SLOW_RATIO - 0.1, 1.0, 1.0)
    assert list(judge(replicas, NOW)) == []


def test_one_of_two_may_be_slow() -> None:
    replicas = replicas_with(2.0, 0.2)
    assert list(judge(replicas, NOW)) == [replicas[0]]


def test_a_ratio_of_little_is_little() -> None:
    replicas = replicas_with(0.01, 0.01 + LEAST_SECONDS, 0.01)
    assert list(judge(replicas, NOW)) == []
    assert list(judge(replicas_with(0.01, 0.02 + LEAST_SECONDS, 0.01), NOW)) != []


def test_too_few_first_tokens_say_nothing() -> None:
    assert list(judge(replicas_with(9.0, 0.1, 0.1, samples=LEAST_FIRST_TOKENS - 1), NOW)) == []
    replicas = replicas_with(9.0, 0.1, None)
    replicas[1].first_tokens.pop()
    assert list(judge(replicas, NOW)) == []  # no sibling to be measured by


def test_a_slow_one_is_well_again_only_when_it_is_clearly_quicker() -> None:
    replicas = replicas_with(9.0, 1.0, 1.0)
    list(judge(replicas, NOW))
    for seconds, still in ((WELL_RATIO + 0.1, [0]), (WELL_RATIO - 0.1, [])):
        replicas[0].first_tokens.extend([(NOW, seconds)] * FIRST_TOKENS_KEPT)
        assert list(judge(replicas, NOW)) == []
        assert slow(replicas) == still


def test_a_slow_one_of_which_nothing_is_known_any_more_is_tried_as_any_other() -> None:
    replicas = replicas_with(9.0, 1.0, 1.0)
    list(judge(replicas, NOW))
    assert slow(replicas) == [0]
    list(judge(replicas, NOW + FIRST_TOKEN_SECONDS))
    assert slow(replicas) == []


def test_of_several_those_are_slow_that_are_so_beside_the_others() -> None:
    replicas = replicas_with(0.1, 5.0, 0.1, 9.0, 7.0, 0.1, 0.1)
    assert list(judge(replicas, NOW)) == [replicas[1], replicas[3], replicas[4]]
    replicas = replicas_with(5.0, 5.0, 0.1, 9.0, 7.0)  # most are: it is the quick one that is odd
    assert list(judge(replicas, NOW)) == []


@given(st.lists(st.none() | st.floats(0, 60), min_size=1, max_size=8), st.lists(st.booleans(), min_size=8, max_size=8))
def test_never_more_than_half_are_slow_and_never_the_quickest(medians: list[float | None], before: list[bool]) -> None:
    replicas = replicas_with(*medians)
    for replica, was in zip(replicas, before, strict=False):
        replica.slow = was
    were = set(slow(replicas))
    became = list(judge(replicas, NOW))
    assert {replicas[i] for i in set(slow(replicas)) - were} == set(became)
    known = [seconds for seconds in medians if seconds is not None]
    assert 2 * len(slow(replicas)) <= len(known)
    assert all(medians[i] is not None and medians[i] != min(known) for i in slow(replicas))
