"""One entry comes or goes; nothing else of the file may change by a byte."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.errors import ConfigError
from router.yamledit import with_entry, without_entry, without_items, without_section
from router.yamlfile import YamlFile

ENTRY = ["new:", "  # about it", "  model: m", "", "  deep:", "    deeper: [1]"]
FILE = """\
# The head.
version: 1   # one

things:        # those
  a:
    x: 1   # why
    # y: 2

  # About b.
  b: {x: 1}     # in one line
    # below b

# Of others.
others: [1, 2]
"""
BOTH = FILE.replace(
    "# Of others.", "  new:\n    # about it\n    model: m\n\n    deep:\n      deeper: [1]\n\n# Of others."
)


def test_an_entry_comes_behind_the_last_and_all_that_belongs_to_it() -> None:
    assert with_entry(FILE, "things", ENTRY) == BOTH


def test_an_entry_goes_with_the_comments_below_its_first_line_and_a_blank_line() -> None:
    assert without_entry(BOTH, "things", "new") == FILE
    assert without_entry(FILE, "things", "a") == FILE.replace("  a:\n    x: 1   # why\n    # y: 2\n\n", "")
    assert without_entry(FILE, "things", "b") == FILE.replace(
        "  b: {x: 1}     # in one line\n    # below b\n", ""
    ).replace("# About b.\n\n", "# About b.\n")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("things:\n  a: 1", "things:\n  a: 1\n\n  k: v"),
        ("things:\n  a: 1\n", "things:\n  a: 1\n\n  k: v\n"),
        ("things:\n  a: 1\n\n\n", "things:\n  a: 1\n\n  k: v\n\n\n"),
        ("things:\n  a: 1\n  b: 2\n", "things:\n  a: 1\n  b: 2\n  k: v\n"),
        ("things:\n      a: 1\n      b: 2\n", "things:\n      a: 1\n      b: 2\n      k: v\n"),
        ("things:\r\n  a: 1\r\n  b: 2\r\n", "things:\r\n  a: 1\r\n  b: 2\r\n  k: v\r\n"),
        (
            "things:\n  a: |\n    # text\n\n    more\nx: 1\n",
            "things:\n  a: |\n    # text\n\n    more\n\n  k: v\nx: 1\n",
        ),
        ("things:\n  a:\n    - x\n  # loose\nx: 1\n", "things:\n  a:\n    - x\n\n  k: v\n  # loose\nx: 1\n"),
        ("things:\n  a: [1,\n2]\nx: 1\n", "things:\n  a: [1,\n2]\n\n  k: v\nx: 1\n"),
        ("things:\n  a: 1\n...\n", "things:\n  a: 1\n\n  k: v\n...\n"),
        ("---\nthings:\n  a: ${KEY}\n  b: {c: ${KEY}}\n", "---\nthings:\n  a: ${KEY}\n  b: {c: ${KEY}}\n  k: v\n"),
        ('x: 1\n"things":\n  a: 1\n', 'x: 1\n"things":\n  a: 1\n\n  k: v\n'),
    ],
)
def test_it_is_written_as_its_neighbours_are(before: str, after: str) -> None:
    assert with_entry(before, "things", ["k: v"]) == after


@pytest.mark.parametrize(
    "text",
    [
        "", "{x: 1}\n", "things:\n",
        "things: {}\n", "things: {a: 1}\n", "things: [1]\n", "things: {a: 1,\n  b: 2}\n", "things: 5\n",
        "base: &b\n  a: 1\nthings: *b\n", "things: &t\n  a: 1\n", "- things\n",
    ],
)  # fmt: skip
def test_a_section_that_cannot_be_added_to_is_told(text: str) -> None:
    with pytest.raises(ConfigError, match=r"f\.yaml:\d+:\d+: things: can be edited only"):
        with_entry(text, "things", ["k: v"], "f.yaml")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x: 1\n", "x: 1\n\nthings:\n  k: v\n"),
        ("x: 1", "x: 1\n\nthings:\n  k: v"),
        ("x: 1\r\n", "x: 1\r\n\r\nthings:\r\n  k: v\r\n"),
        ("x:\n  - 1\n# foot\n...\n", "x:\n  - 1\n# foot\n\nthings:\n  k: v\n...\n"),
    ],
)
def test_a_section_that_is_not_there_comes_at_the_end_and_goes_again(before: str, after: str) -> None:
    assert with_entry(before, "things", ["k: v"]) == after
    assert without_section(after, "things") == before


@pytest.mark.parametrize(
    ("before", "places", "after"),
    [
        ("x: [a, b, c]  # why\n", [("x", 0)], "x: [b, c]  # why\n"),
        ("x: [a, b, c]\n", [("x", 1), ("x", 2)], "x: [a]\n"),
        ("x: [a, b, c]\n", [("x", 0), ("x", 2)], "x: [b]\n"),
        ("y: 1\nx: [a]   # gone\n# stays\n", [("x", 0)], "y: 1\n# stays\n"),
        ("x: {a: 1, b: [2]}\n", [("x", "b")], "x: {a: 1}\n"),
        ("k: {x: [a], y: 1}\n", [("k", "x", 0)], "k: {y: 1}\n"),
        ("x:\n  - a   # one\n  - b\n  # of c\n  - c\ny: 1\n", [("x", 1)], "x:\n  - a   # one\n  # of c\n  - c\ny: 1\n"),
        ("k:\n  x:\n    - a\n    - b\n\n  # of z\n  z: 1\n", [("k", "x", 0), ("k", "x", 1)], "k:\n\n  # of z\n  z: 1\n"),
        ("x:\n  a: 1\n  b:\n    c:\n      - 1\n  d: |\n    text\n\ny: 1\n", [("x", "b")], "x:\n  a: 1\n  d: |\n    text\n\ny: 1\n"),
        ("x:\n  a: 1\n  d: |\n    text\n\ny: 1\n", [("x", "d")], "x:\n  a: 1\n\ny: 1\n"),
        ("x: [a,  # one\n  b,  # two\n]\n", [("x", 1)], "x: [a,  # one\n    # two\n]\n"),
        ("s: &s [a, b]\nx: *s\n", [("s", 0), ("x", 0)], "s: &s [b]\nx: *s\n"),
    ],
)  # fmt: skip
def test_items_go_and_nothing_with_them(before: str, places: list[tuple[str | int, ...]], after: str) -> None:
    assert without_items(before, places) == after
    YamlFile.parse(after, "f")


@pytest.mark.parametrize("text", ["a: &a 1\nx: [*a, b]\n", "x: 1\n", "y: 1\n", "a: &a {x: [c]}\n<<: *a\n"])
def test_what_is_written_elsewhere_is_not_cut(text: str) -> None:
    with pytest.raises(ConfigError, match="write it by hand"):
        without_items(text, [("x", 0)])


def test_what_is_no_yaml_is_told() -> None:
    with pytest.raises(ConfigError, match="not valid YAML"):
        with_entry("things:\n  a: [\n", "things", ["k: v"])


def test_the_last_entry_and_one_that_is_not_there_cannot_go() -> None:
    with pytest.raises(ConfigError, match="is the only one"):
        without_entry("things:\n  a: 1\n", "things", "a")
    with pytest.raises(ConfigError, match="has no 'b'"):
        without_entry("things:\n  a: 1\n", "things", "b")


COMMENTS = st.sampled_from(["", "\n", "  # as deep as the keys\n", "      # deeper\n", "# at the margin\n", "   \n"])
VALUES = st.sampled_from(
    [
        "{x: 1}", "\n    x: 1", "\n    - 1\n    - 2", "|\n    # no comment\n\n    x", "'two\n    lines'", "[1,\n    2]",
        "# none\n    x: 1", "[1,\n2]", "{x:\n  1,\n}",
    ]
)  # fmt: skip
KEYS = st.lists(st.sampled_from(["a", "b-c", "d.e", "'q'", "5"]), min_size=1, max_size=4, unique=True)


@st.composite
def files(draw: st.DrawFn) -> str:
    """A file whose section `things` has entries of every kind, with comments and blank lines anywhere."""
    text = draw(st.sampled_from(["", "# head\n", "first: 1\n", "---\n"])) + "things:\n"
    for key in draw(KEYS):
        text += draw(COMMENTS) + f"  {key}: {draw(VALUES)}\n" + draw(COMMENTS) + draw(COMMENTS)
    text += draw(st.sampled_from(["", "last: [1]\n", "# foot\n", "other:\n  new: 1\n"]))
    if draw(st.booleans()) and "|" not in text:  # whose value would have a line end more
        text = text.removesuffix("\n")
    return text.replace("\n", "\r\n") if draw(st.booleans()) else text


def is_put_in(small: str, large: str) -> bool:
    """Whether `large` is `small` with one piece more in one place."""
    pieces = (large[i : i + len(large) - len(small)] for i in range(len(small) + 1))
    return any(small == large[:i] + large[i + len(piece) :] for i, piece in enumerate(pieces))


@given(files())
@settings(deadline=None)
def test_an_entry_that_came_is_read_and_the_rest_is_the_same_to_the_byte(text: str) -> None:
    before = YamlFile.parse(text, "f").data
    made = with_entry(text, "things", ENTRY)
    added = {"model": "m", "deep": {"deeper": [1]}}
    assert YamlFile.parse(made, "f").data == before | {"things": before["things"] | {"new": added}}
    assert is_put_in(text, made)
    assert without_entry(made, "things", "new") == text


@given(files(), st.integers(0, 3))
@settings(deadline=None)
def test_an_entry_that_goes_takes_nothing_with_it_that_is_read(text: str, number: int) -> None:
    before = YamlFile.parse(text, "f").data
    keys = list(before["things"])
    if len(keys) < 2:
        return
    key = keys[number % len(keys)]
    left = {name: value for name, value in before["things"].items() if name != key}
    made = without_entry(text, "things", key)
    assert YamlFile.parse(made, "f").data == before | {"things": left}
    assert is_put_in(made, text)


ITEMS = st.lists(st.sampled_from(["a", "'b, c'", "{d: 1}", "[e, f]", '"#"']), min_size=2, max_size=5, unique=True)


@given(ITEMS, st.data(), st.booleans(), st.sampled_from(["", "  # why"]))
def test_any_items_of_a_list_go(items: list[str], data: st.DataObject, flow: bool, comment: str) -> None:
    if flow:
        text = f"x: [{', '.join(items)}]{comment}\ny: 1\n"
    else:
        text = "x:\n" + "".join(f"  - {item}{comment}\n" for item in items) + "y: 1\n"
    gone = data.draw(st.sets(st.sampled_from(range(len(items))), max_size=len(items) - 1))
    values = YamlFile.parse(text, "f").data["x"]
    made = without_items(text, [("x", n) for n in gone])
    left = [value for n, value in enumerate(values) if n not in gone]
    assert YamlFile.parse(made, "f").data == {"x": left, "y": 1}
    assert made.count("# why") == (text.count("# why") if flow else len(left) * bool(comment))
