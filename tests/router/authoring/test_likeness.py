from __future__ import annotations

from itertools import islice, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.authoring.likeness import DENSE_WIDTH, LEAST_SHINGLES, WIDTH, Likeness, Shingled, normalised

COMMON = ["what", "is", "the", "difference", "between", "and"]
WORDS = [
    *(
        "anchor",
        "basil",
        "copper",
        "dolphin",
        "ember",
        "fjord",
        "gravel",
        "harbour",
        "indigo",
        "juniper",
        "kettle",
        "lantern",
    ),
    *(
        "marble",
        "nectar",
        "orchard",
        "pebble",
        "quartz",
        "ribbon",
        "saffron",
        "thistle",
        "umbrella",
        "velvet",
        "walnut",
    ),
    *(
        "xylophone",
        "yonder",
        "zephyr",
        "almond",
        "bramble",
        "cinder",
        "dagger",
        "eclipse",
        "feather",
        "glacier",
        "hazel",
    ),
]


def shingles(text: str, width: int = WIDTH) -> set[str]:
    padded = f" {text} "
    return {padded[i : i + width] for i in range(len(padded) - width + 1)}


def by_hand(texts: list[str], least: float, own: int) -> list[Likeness]:
    """Every pair compared with every other."""
    sets = [shingles(text) for text in texts]
    found = []
    for i, one in enumerate(sets):
        for j in range(i + 1, len(sets)):
            other, smaller = sets[j], min(len(one), len(sets[j]))
            if smaller >= LEAST_SHINGLES and i < own and len(one & other) >= least * smaller - 1e-9:
                found.append(Likeness(i, j, len(one & other) / len(one | other), len(one & other) / smaller))
    return found


def alike(*texts: str, least: float = 0.5) -> list[tuple[int, int]]:
    return [(like.first, like.second) for like in Shingled([normalised(t) for t in texts]).alike(least)]


# Normalising


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("Hello, World!", "hello world"),
        ("  a\n\tb ", "a b"),
        ("ﬁne ½", "fine 1⁄2"),
        ("STRASSE", "straße"),
        ("x² + 1 = 0", "x2 + 1 = 0"),
        ("ＡＢＣ１", "abc1"),
        ("e\u0301te\u0301", "été"),
        ("don't", "don t"),
    ],
)
def test_form_case_punctuation_and_white_space_do_not_tell_texts_apart(text: str, same: str) -> None:
    assert normalised(text) == normalised(same)


@pytest.mark.parametrize(("text", "other"), [("2 + 2", "2 = 2"), ("กิน", "กน"), ("की", "क"), ("5 €", "5 $"), ("é", "e")])
def test_symbols_vowel_signs_and_accents_do(text: str, other: str) -> None:
    assert normalised(text) != normalised(other)


@given(st.text())
@settings(deadline=None)
def test_a_normalised_text_stays_as_it_is(text: str) -> None:
    once = normalised(text)
    assert normalised(once) == once


# Pairs


@given(
    st.lists(st.lists(st.sampled_from(["ab", "abc", "ba", "cab", "acca"]), max_size=14).map(" ".join), max_size=9),
    st.sampled_from([0.1, 0.4, 0.5, 0.75, 1.0]),
    st.integers(0, 9),
)
@settings(deadline=None, max_examples=150)
def test_exactly_the_pairs_are_found_that_comparing_everything_finds(texts: list[str], least: float, own: int) -> None:
    assert sorted(Shingled(texts).alike(least, own)) == by_hand(texts, least, own)


@given(st.lists(st.sampled_from(WORDS), min_size=16, max_size=40, unique=True), st.data())
@settings(deadline=None)
def test_a_text_is_found_again_after_edits_of_a_few_words(words: list[str], data: st.DataObject) -> None:
    edited = list(words)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(edited) - 1))
        edited[at : at + 1] = data.draw(
            st.sampled_from([[], ["Zwölf"], [edited[at], "again"], [edited[at].upper() + "!"]])
        )
    unrelated = list(reversed(COMMON)) * 5
    ((first, second),) = alike(" ".join(words), " ".join(unrelated), " ".join(edited))
    assert (first, second) == (0, 2)


@given(st.permutations(WORDS), st.permutations(COMMON))
@settings(deadline=None)
def test_texts_that_share_no_more_than_common_words_are_no_pair(words: list[str], common: list[str]) -> None:
    one = " ".join([*words[:14], *common])
    other = " ".join([*common, *words[14:28]])
    assert alike(one, other) == []


def test_a_pair_says_how_much_is_shared() -> None:
    short, long = (
        "a question of some forty characters or so",
        "a question of some forty characters or so and its options",
    )
    (like,) = Shingled([long, short]).alike(0.5)
    assert (like.first, like.second, like.contained) == (0, 1, 1.0)
    assert like.jaccard == pytest.approx(len(shingles(short) & shingles(long)) / len(shingles(short) | shingles(long)))


def test_a_pair_that_shares_hardly_anything_is_found_where_that_is_asked_for() -> None:
    one, other = " ".join(WORDS[:4]), " ".join([*WORDS[4:7], "canopy"])
    shared = shingles(one + " fir") & shingles(other + " fir")
    assert 0 < len(shared) < 4
    assert alike(one + " fir", other + " fir", least=0.02) == [(0, 1)]


def test_words_are_told_from_parts_of_words_and_texts_end_where_they_end() -> None:
    text = "the quick brown fox jumps over it"
    assert len(shingles(text)) == len(text) + 2 - WIDTH + 1
    assert alike("x" * 20 + "abcdefghij", "klmnopqrst" + "y" * 20, "abcdefghijklmnopqrst") == []


def test_scripts_of_dense_characters_are_compared_by_shorter_shingles() -> None:
    text = "请问二战期间英国是如何破译德军密码的呢谢谢"
    edited = "请问战争期间英国是怎样破译德国密码的呢谢谢"
    shared = shingles(text, DENSE_WIDTH) & shingles(edited, DENSE_WIDTH)
    (like,) = Shingled([text, edited]).alike(0.3)
    assert like.jaccard == pytest.approx(len(shared) / len(shingles(text, DENSE_WIDTH) | shingles(edited, DENSE_WIDTH)))


def test_short_texts_are_left_out() -> None:
    assert alike("square root", "square root") == []
    assert alike("square root of 1764", "square root of 1764") == [(0, 1)]


def test_evaluation_sets_are_not_compared_with_themselves() -> None:
    text = "how long does a loaf of rye bread keep"
    found = [(like.first, like.second) for like in Shingled([text] * 4).alike(0.5, 2)]
    assert sorted(found) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3)]


def test_no_texts_have_no_pairs() -> None:
    assert alike() == []
    assert alike("", "") == []


def test_what_is_found_does_not_depend_on_the_order_of_texts() -> None:
    texts = [" ".join(words) for words in islice(permutations(WORDS[:6], 4), 60)]
    order = [(17 * i) % 60 for i in range(60)]
    found = {frozenset(pair) for pair in alike(*texts)}
    again = {frozenset(order[i] for i in pair) for pair in alike(*(texts[i] for i in order))}
    assert found == again
    assert found
