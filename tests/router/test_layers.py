from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.layers import Layers, Origin, Reference, merged
from router.yamlfile import YamlFile

BASE = """\
router: {floor: 0.5}
experts:
  coder:
    model: base/coder
    price: {input: 1, output: 2}
    fallbacks: [general, other]
  general:
    model: base/general
"""
TOP = """\
experts:
  coder:
    model: top/coder
    price:
      output: ${PRICE:-3}
    fallbacks: []
  general:
  added: {model: "quoted"}
"""
NAMES = st.sampled_from("abc")
SHAPED = st.fixed_dictionaries({}, optional={"x": st.integers(), "y": st.lists(st.integers(), max_size=2)})
TREES = st.dictionaries(NAMES, SHAPED, max_size=3)  # of one shape: what is a mapping in one is in all
ANY = st.recursive(
    st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=10,
)
ANY_NULLS = st.recursive(
    st.none() | st.integers(), lambda inner: st.dictionaries(NAMES, inner, max_size=3), max_leaves=10
).filter(lambda tree: isinstance(tree, dict))


def layers(*texts: str) -> Layers:
    return Layers.of([YamlFile.parse(text, f"{i}.yaml") for i, text in enumerate(texts)])


def place(whole: Layers, *path: str | int, at_key: bool = False) -> str:
    problem = whole.problem(path, "", at_key=at_key)
    return f"{problem.file}:{problem.line}:{problem.column}"


def test_mappings_are_merged_lists_and_values_replaced_and_null_takes_away() -> None:
    assert layers(BASE, TOP).data == {
        "router": {"floor": 0.5},
        "experts": {
            "coder": {"model": "top/coder", "price": {"input": 1, "output": "${PRICE:-3}"}, "fallbacks": []},
            "added": {"model": "quoted"},
        },
    }


def test_null_where_nothing_is_under_it_stays_what_it_was() -> None:
    assert layers("a: 1\n", "b:\nc: {d: null}\n").data == {"a": 1, "b": None, "c": {"d": None}}


@given(ANY)
@settings(deadline=None, max_examples=50)
def test_what_is_laid_over_itself_or_under_or_over_nothing_is_the_same(tree: object) -> None:
    assert merged(tree, tree) == tree
    if isinstance(tree, dict):
        assert merged(tree, {}) == merged({}, tree) == tree


@given(TREES, TREES, TREES)
@settings(deadline=None, max_examples=50)
def test_of_three_it_is_the_same_which_two_are_laid_first(a: object, b: object, c: object) -> None:
    assert merged(merged(a, b), c) == merged(a, merged(b, c))


@given(ANY_NULLS, ANY_NULLS)
@settings(deadline=None, max_examples=50)
def test_every_value_of_what_lies_on_top_counts_and_what_it_takes_away_is_gone(lower: object, upper: object) -> None:
    def check(top: dict[str, object], under: object, both: dict[str, object]) -> None:
        for key, value in top.items():
            if value is None and isinstance(under, dict) and key in under:
                assert key not in both
            elif isinstance(value, dict):
                inner = both[key]
                assert isinstance(inner, dict)
                check(value, under.get(key) if isinstance(under, dict) else None, inner)
            else:
                assert both[key] == value

    assert isinstance(upper, dict)
    check(upper, lower, merged(lower, upper))


@given(ANY_NULLS, ANY_NULLS)
@settings(deadline=None, max_examples=50)
def test_every_value_has_an_origin_in_the_file_that_says_it(lower: object, upper: object) -> None:
    whole = layers(json.dumps(lower), json.dumps(upper))

    def check(value: object, path: tuple[str | int, ...]) -> None:
        origin = whole.origin(path)
        assert origin is not None
        if isinstance(value, dict):
            for key, inner in value.items():
                check(inner, (*path, key))
        else:
            assert origin.written == json.dumps(value)

    for key, value in whole.data.items():
        check(value, (key,))


def test_a_problem_stands_in_the_file_that_says_what_counts() -> None:
    whole = layers(BASE, TOP)
    assert place(whole, "experts", "coder", "model") == "1.yaml:3:12"
    assert place(whole, "experts", "coder", "price", "input") == "0.yaml:5:20"
    assert place(whole, "experts", "coder", "price", "output") == "1.yaml:5:15"
    assert place(whole, "experts", "coder", "fallbacks", 0) == "1.yaml:6:5"  # what is in the lower list is hidden
    assert place(whole, "router", "floor", at_key=True) == "0.yaml:1:10"
    assert place(whole, "experts", "coder", "absent") == "1.yaml:2:3"
    assert place(whole, "absent") == "1.yaml:1:1"


def test_what_hides_a_mapping_hides_all_that_is_below_it() -> None:
    whole = layers("a: {b: {c: 1}}\n", "a: 5\n", "a: {b: {}}\n")
    assert whole.data == {"a": {"b": {}}}
    assert place(whole, "a", "b", "c") == "2.yaml:1:5"
    assert whole.origin(("a", "b", "c")) is None


def test_an_origin_tells_what_was_written_there_and_of_a_default_there_is_none() -> None:
    whole = layers(BASE, TOP)
    assert whole.origin(("experts", "coder", "price", "output")) == Origin("1.yaml", 5, 15, "${PRICE:-3}")
    assert whole.origin(("experts", "coder", "price", "input")) == Origin("0.yaml", 5, 20, "1")
    assert whole.origin(("experts", "added", "model")) == Origin("1.yaml", 8, 18, "quoted")
    assert whole.origin(("experts", "coder")) == Origin("1.yaml", 2, 3, "")
    assert whole.origin(("router", "fallback")) is None


def test_what_came_through_a_merge_key_has_its_origin_where_it_stands() -> None:
    whole = layers("one: &one {a: 1}\ntwo: &two {a: 2, b: 3}\nboth: {<<: [*one, *two], c: 4}\n")
    assert [place(whole, "both", key) for key in "abc"] == ["0.yaml:1:15", "0.yaml:2:21", "0.yaml:3:29"]


@pytest.mark.parametrize(
    ("path", "plain"), [(("experts", "added", "model"), False), (("experts", "coder", "model"), True)]
)
def test_quotes_are_told(path: tuple[str, ...], plain: bool) -> None:
    assert layers(BASE, TOP).is_plain(path) is plain


def test_keys_that_stand_twice_are_told_of_each_file_and_not_of_two() -> None:
    whole = layers("a: 1\nb: 2\na: 3\n", "a: 1\nc: 1\nc: 2\n")
    assert [(p.file, p.line) for p in whole.duplicates()] == [("0.yaml", 3), ("1.yaml", 3)]


def test_no_problem_repeats_what_came_from_the_environment() -> None:
    text = "a: {b: ${KEY}, c: ${HOST}}\n"
    references: dict[tuple[str | int, ...], Reference] = {
        ("a", "b"): Reference("${KEY}", "hunter2-hunter2"),
        ("a", "c"): Reference("${HOST}", "h"),
    }
    whole = Layers([YamlFile.parse(text, "f")], None, references)
    for path in (("a",), ("a", "b"), ("a", "b", "Tag")):
        told = str(whole.problem(path, "'hunter2-hunter2' and hunter2-hunter2 are 'h' and wrong"))
        assert "hunter2" not in told
        assert "'${KEY}' and ${KEY} are" in told
    assert "are 'h'" not in str(whole.problem(("a",), "they are 'h'"))
    assert "they are 'h'" in str(whole.problem(("other",), "they are 'h'"))
    assert "hunter2" not in repr(whole)
