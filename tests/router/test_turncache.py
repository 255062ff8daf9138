from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from router.decision import Scores
from router.turncache import TurnCache

SIZE = 4


def scores(about: str) -> Scores:
    return Scores({about: 1.0}, "static")


def test_what_was_put_is_there_and_nothing_else() -> None:
    cache = TurnCache(SIZE)
    cache.put("a", scores("x"))
    assert cache.get("a") == scores("x")
    assert cache.get("A") is None
    assert cache.get("") is None


def test_the_least_lately_used_is_forgotten_first() -> None:
    cache = TurnCache(2)
    for text in ("a", "b"):
        cache.put(text, scores(text))
    cache.get("a")
    cache.put("c", scores("c"))
    assert [cache.get(text) is not None for text in "abc"] == [True, False, True]


def test_what_is_put_again_is_the_latest() -> None:
    cache = TurnCache(2)
    for text in ("a", "b", "a", "c"):
        cache.put(text, scores(text.upper()))
    assert [cache.get(text) is not None for text in "abc"] == [True, False, True]


def test_half_a_character_is_a_text_too() -> None:
    cache = TurnCache(2)
    cache.put("\ud800", scores("x"))
    assert cache.get("\ud800") == scores("x")
    assert cache.get("?") is None


def test_no_text_is_kept() -> None:
    cache = TurnCache(2)
    cache.put("a secret of the user", scores("x"))
    assert "secret" not in repr(vars(cache))


@given(st.lists(st.text(max_size=3), max_size=40))
def test_it_never_holds_more_than_its_size_and_always_the_last(texts: list[str]) -> None:
    cache = TurnCache(SIZE)
    for text in texts:
        cache.put(text, scores(text))
        assert len(cache) <= SIZE
        assert cache.get(text) == scores(text)
    latest = list(dict.fromkeys(reversed(texts)))
    assert [cache.get(text) == scores(text) for text in latest[:SIZE]] == [True] * len(latest[:SIZE])


def test_threads_may_share_it() -> None:
    cache = TurnCache(SIZE)

    def work(part: int) -> bool:
        for i in range(300):
            text = str((i * 7 + part) % 9)
            cache.put(text, scores(text))
            if cache.get(text) not in (None, scores(text)):
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))
    assert len(cache) == SIZE
