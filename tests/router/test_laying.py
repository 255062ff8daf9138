from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from router.errors import ConfigError
from router.laying import MAX_DEPTH, Laid, lay, named
from router.sources import read_sources
from router.textfiles import UnreadableError

FOLDER = Path("/conf")


@pytest.fixture(autouse=True, scope="module")
def environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STAGE", "staging")
        patch.setenv("NUMBER", "64")
        patch.delenv("ABSENT", raising=False)
        yield


def laid(texts: Mapping[str, str], asked: list[str] | None = None) -> Laid:
    """`asked` gets the name of every text that is asked for."""

    def text(name: str) -> str:
        if asked is not None:
            asked.append(name)
        if name not in texts:
            raise UnreadableError("is not there")
        return texts[name]

    return lay("top.yaml", text, FOLDER)


def refusal(texts: Mapping[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        laid(texts)
    (problem,) = caught.value.problems
    return str(problem)


def test_a_file_lies_over_what_it_extends_and_of_several_the_later_over_the_earlier() -> None:
    texts = {
        "top.yaml": "extends: [one.yaml, two.yaml]\nown: top\n",
        "one.yaml": "extends: base.yaml\nown: 1\nboth: 1\nfirst: 1\n",
        "two.yaml": "own: 2\nboth: 2\nbase: 2\n",
        "base.yaml": "own: 0\nboth: 0\nbase: 0\nfirst: 0\nroot: 0\n",
    }
    found = laid(texts)
    assert found.layers.data == {"own": "top", "both": 2, "first": 1, "base": 2, "root": 0}
    assert [file.name for file in found.layers.files] == ["base.yaml", "one.yaml", "two.yaml", "top.yaml"]


def test_a_file_that_two_extend_lies_under_both_and_is_read_once() -> None:
    texts = {
        "top.yaml": "extends: [one.yaml, two.yaml]\n",
        "one.yaml": "extends: base.yaml\na: 1\n",
        "two.yaml": "extends: base.yaml\nb: 2\n",
        "base.yaml": "a: 0\nb: 0\n",
    }
    asked: list[str] = []
    assert laid(texts, asked).layers.data == {"a": 1, "b": 2}
    assert sorted(asked) == sorted(texts)


def test_a_path_is_looked_for_from_the_file_that_names_it() -> None:
    texts = {
        "top.yaml": "extends: sub/one.yaml\n",
        "sub/one.yaml": "extends: [two.yaml, ../base.yaml, /etc/moe/far.yaml]\n",
        "sub/two.yaml": "two: 2\n",
        "base.yaml": "base: 0\n",
        "/etc/moe/far.yaml": "extends: near.yaml\n",
        "/etc/moe/near.yaml": "near: 1\n",
    }
    assert laid(texts).layers.data == {"two": 2, "base": 0, "near": 1}


@pytest.mark.parametrize(
    ("reference", "by", "name"),
    [
        ("a.yaml", "top.yaml", "a.yaml"),
        ("./b/../a.yaml", "top.yaml", "a.yaml"),
        ("../conf/top.yaml", "top.yaml", "top.yaml"),
        ("../other/a.yaml", "top.yaml", "../other/a.yaml"),
        ("a.yaml", "sub/top.yaml", "sub/a.yaml"),
        ("/x/a.yaml", "sub/top.yaml", "/x/a.yaml"),
    ],
)
def test_a_file_has_one_name_however_it_is_written(reference: str, by: str, name: str) -> None:
    assert named(reference, by, FOLDER) == name


def test_what_is_extended_may_depend_on_the_environment() -> None:
    texts = {"top.yaml": "extends: base-${STAGE:-dev}.yaml\n", "base-staging.yaml": "a: 1\n"}
    assert laid(texts).layers.data == {"a": 1}


@pytest.mark.parametrize("text", ["", "# only a comment\n"])
def test_what_is_extended_may_be_empty(text: str) -> None:
    assert laid({"top.yaml": "extends: base.yaml\na: 1\n", "base.yaml": text}).layers.data == {"a": 1}


@pytest.mark.parametrize("extends", ["extends:", "extends: []"])
def test_a_file_may_extend_none(extends: str) -> None:
    assert laid({"top.yaml": f"{extends}\na: 1\n"}).layers.data == {"a": 1}


PATHS = "expected the path of a file, or a list of paths: extends: base.yaml"


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        ({"top.yaml": "a: 1\nextends: base.yaml\n"}, "top.yaml:2:10: extends: base.yaml is not there"),
        (
            {"top.yaml": "extends: [a.yaml, b.yaml]\n", "a.yaml": ""},
            "top.yaml:1:19: extends.1: b.yaml is not there",
        ),
        ({"top.yaml": "extends: ./top.yaml\n"}, "top.yaml:1:10: extends: ./top.yaml extends this file in turn"),
        (
            {"top.yaml": "extends: a.yaml\n", "a.yaml": "\nextends: top.yaml\n"},
            "a.yaml:2:10: extends: top.yaml extends this file in turn",
        ),
        ({"top.yaml": "extends: 5\n"}, f"top.yaml:1:10: extends: {PATHS}"),
        ({"top.yaml": "extends: [a.yaml, {}]\n", "a.yaml": ""}, f"top.yaml:1:19: extends.1: {PATHS}"),
        ({"top.yaml": "extends: ''\n"}, f"top.yaml:1:10: extends: {PATHS}"),
        ({"top.yaml": "extends: {a: b}\n"}, f"top.yaml:1:1: extends: {PATHS}"),
        ({"top.yaml": "extends: ${ABSENT}\n"}, "top.yaml:1:10: extends: the environment variable ABSENT is not set"),
        (
            {"top.yaml": "extends: a.yaml\n", "a.yaml": "- 1\n"},
            "a.yaml:1:1: expected keys such as version: 1 and experts:",
        ),
        ({"top.yaml": "extends: a.yaml\n", "a.yaml": "a: 1\nb: [\n"}, "a.yaml:3:1: not valid YAML: "),
        ({"top.yaml": ""}, "top.yaml:1:1: expected keys such as version: 1 and experts:"),
        ({"top.yaml": "# nothing\n"}, "top.yaml:1:1: expected keys such as version: 1 and experts:"),
        ({}, "top.yaml:1:1: is not there"),
    ],
)
def test_what_cannot_be_extended_is_told_where_it_is_named(texts: dict[str, str], says: str) -> None:
    assert refusal(texts).startswith(says)


def test_a_chain_of_files_has_an_end() -> None:
    names = ["top.yaml", *(f"{i}.yaml" for i in range(MAX_DEPTH + 1))]
    texts = {name: f"extends: {names[i + 1]}\n" for i, name in enumerate(names[:-1])}
    assert laid({**texts, names[MAX_DEPTH]: "a: 1\n"}).layers.data == {"a": 1}
    assert refusal({**texts, names[-1]: ""}).endswith(f"files extend one another more than {MAX_DEPTH} deep")


def test_values_come_out_of_the_environment_as_though_they_were_written_there() -> None:
    values = "[x-${NUMBER}, ${ABSENT:-0.5}, ${ABSENT:-true}, ${ABSENT:-}]"
    text = f"a: ${{NUMBER}}\nb: '${{NUMBER}}'\nc: {values}\nd: $${{NUMBER}}\n${{STAGE}}: 1\n"
    found = laid({"top.yaml": text})
    assert found.layers.data == {
        "a": 64,
        "b": "64",
        "c": ["x-64", 0.5, True, None],
        "d": "${NUMBER}",
        "${STAGE}": 1,
    }
    assert found.problems == []


def test_a_reference_in_an_upper_file_is_no_concern_of_a_lower_one() -> None:
    found = laid({"top.yaml": "extends: base.yaml\na: 1\n", "base.yaml": "a: ${ABSENT}\nb: ${ABSENT}\n"})
    assert [str(problem) for problem in found.problems] == [
        "base.yaml:2:4: b: the environment variable ABSENT is not set"
    ]
    assert found.failed == [("b",)]


def test_secrets_are_left_to_their_type_and_their_files_are_named_from_the_file_that_says_so() -> None:
    texts = {
        "top.yaml": "extends: sub/base.yaml\nexperts: {a: {upstream: {launch: {env: {B: file:/run/b, C: '${ABSENT}'}}}}}\n",
        "sub/base.yaml": "experts: {a: {upstream: {api_key: file:../keys/a}}, b: {upstream: {api_key: '${ABSENT}'}}}\n",
    }
    found = laid(texts)
    assert found.layers.data["experts"] == {
        "a": {"upstream": {"api_key": "file:/conf/keys/a", "launch": {"env": {"B": "file:/run/b", "C": "${ABSENT}"}}}},
        "b": {"upstream": {"api_key": "${ABSENT}"}},
    }
    assert found.secrets == ["keys/a", "/run/b"]
    assert found.problems == []


def test_examples_come_from_a_file_of_prompts() -> None:
    texts = {
        "top.yaml": "extends: sub/base.yaml\ndomains: {tax: {examples: file:${STAGE}.jsonl}, old: {examples: file:OLD}}\n",
        "OLD": "{a}\n",
        "sub/base.yaml": "domains: {legal: {examples: file:legal.txt}}\n",
        "sub/legal.txt": "  What is a tort?\n\n# not a comment\r\n${ABSENT} stays\n",
        "staging.jsonl": '{"prompt": "Who pays\\nVAT?", "id": 1}\n\n{"prompt": "ü"}\n',
    }
    assert laid(texts).layers.data["domains"] == {
        "legal": {"examples": ["What is a tort?", "# not a comment", "${ABSENT} stays"]},
        "old": {"examples": ["{a}"]},
        "tax": {"examples": ["Who pays\nVAT?", "ü"]},
    }


@pytest.mark.parametrize(
    ("prompts", "says"),
    [
        ("\n \n", ["p.jsonl:1:1: has no example prompt: write one a line"]),
        (
            '{"prompt": "a"}\nx\n[1]\n{"prompt": 5}\n{"prompt": " "}\n' + "[" * 100_000,
            [f'p.jsonl:{line}:1: expected an object with a text as its "prompt"' for line in (2, 3, 4, 5, 6)],
        ),
    ],
)
def test_a_file_of_prompts_that_is_none_is_told_line_by_line(prompts: str, says: list[str]) -> None:
    found = laid({"top.yaml": "domains: {legal: {examples: file:p.jsonl}}\n", "p.jsonl": prompts})
    assert [str(problem) for problem in found.problems] == says
    assert found.failed == [("domains", "legal", "examples")]


def test_a_file_of_prompts_among_prompts_is_refused() -> None:
    found = laid({"top.yaml": "domains:\n  legal: {examples: [file:p.txt, file:a b is what, 'file:q']}\n"})
    says = "is a file of prompts: write examples: file:PATH, and no list"
    assert [str(problem) for problem in found.problems] == [
        f"top.yaml:2:{column}: domains.legal.examples.{i}: {says}" for i, column in ((0, 22), (2, 52))
    ]


def test_a_file_of_prompts_that_is_not_there_is_told_where_it_is_named() -> None:
    found = laid({"top.yaml": "domains:\n  legal: {examples: file:p.txt}\n"})
    assert [str(problem) for problem in found.unread] == ["top.yaml:2:21: domains.legal.examples: p.txt is not there"]


@pytest.mark.parametrize("text", ['extends: "${WRONG}"', 'domains: {legal: {examples: "file:${WRONG}"}}'])
def test_what_the_environment_has_for_a_path_is_not_told_where_no_file_is_there(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be the wrong variable, and a secret."""
    monkeypatch.setenv("WRONG", "s3cret-that-is-no-path")
    (tmp_path / "experts.yaml").write_text(f"version: 1\n{text}\n")
    with pytest.raises(ConfigError) as wrong:
        read_sources(tmp_path / "experts.yaml")
    assert "${WRONG} is not there" in str(wrong.value)
    assert "s3cret" not in str(wrong.value)
