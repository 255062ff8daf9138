from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.measuring.replays import Replay, bounce, conversation_figures, followed

EXPERTS = st.lists(st.sampled_from("abc"), min_size=1, max_size=6).map(tuple)


def test_the_bounce_rate_is_over_the_steps_of_all_conversations() -> None:
    replays = [Replay(("a", "b", "b", "a")), Replay(("a", "a")), Replay(("c",))]
    assert bounce(replays) == pytest.approx(2 / 4)
    assert bounce([Replay(("a",))]) is None
    assert bounce([]) is None


@given(st.lists(EXPERTS, max_size=6))
def test_the_bounce_rate_is_a_share_and_one_expert_never_bounces(talks: list[tuple[str, ...]]) -> None:
    rate = bounce(map(Replay, talks))
    if all(len(talk) == 1 for talk in talks):
        assert rate is None
        return
    assert rate is not None
    assert 0 <= rate <= 1
    assert (rate == 0) == all(len(set(talk)) == 1 for talk in talks)
    assert bounce(Replay(("a",) * len(talk)) for talk in talks) == 0


def test_conversations_are_told_apart_by_whether_their_domain_stays() -> None:
    replays = [
        Replay(("a", "b", "a"), ("code", "code", "code")),
        Replay(("a", "a", "b"), ("code", "math", "math")),
        Replay(("a", "b")),
        Replay(("a",), ("code",)),
    ]
    found = conversation_figures(replays, {"topic": 4})
    assert (found["conversations"], found["steps"], found["bounce"]) == (3, 5, pytest.approx(4 / 5))
    assert found["one_domain"] == {"conversations": 1, "steps": 2, "bounce": 1.0}
    assert found["changing"] == {"conversations": 1, "steps": 2, "bounce": 0.5, "changes": 1, "followed": 0.0}
    assert found["switches"] == {"topic": 4}


def test_a_change_of_domain_is_followed_where_the_expert_changes_at_that_very_step() -> None:
    assert followed([Replay(("a", "b", "b"), ("code", "math", "code"))]) == 0.5
    assert followed([Replay(("a", "b"))]) is None
    assert followed([Replay(("a", "b"), ("code", "code"))]) is None
