from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.errors import ConfigError
from router.experts import load_experts, parse_sources
from router.sources import MAX_BYTES, MAX_FILES, Sources, read_sources

EXPERT = "{model: m, domains: [general], upstream: {embedded: smollm2}}"


def files(folder: Path, **texts: str) -> Path:
    """Writes them, `base` as base.yaml and so on; the path of the first."""
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text, "utf-8")
    return folder / f"{next(iter(texts))}.yaml"


def refusal(path: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read_sources(path)
    return caught.value


def test_all_texts_are_read_once_and_by_their_names(tmp_path: Path) -> None:
    path = files(
        tmp_path,
        top="extends: base.yaml\ndomains: {legal: {examples: file:prompts/legal.txt}}\n",
        base=f"version: 1\nexperts:\n  a: {EXPERT.replace('general', 'legal')}\n",
    )
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "legal.txt").write_text("".join(f"question {i}\n" for i in range(5)), "utf-8")
    sources = read_sources(path)
    assert list(sources.texts) == ["top.yaml", "base.yaml", "prompts/legal.txt"]
    assert sources.places == [path, tmp_path / "base.yaml", tmp_path / "prompts" / "legal.txt"]
    assert parse_sources(sources) == load_experts(path)
    assert load_experts(path).sources == sources
    assert parse_sources(pickle.loads(pickle.dumps(sources))) == parse_sources(sources)  # noqa: S301 - our own


def test_what_was_read_counts_whatever_becomes_of_the_files(tmp_path: Path) -> None:
    path = files(tmp_path, top="extends: base.yaml\n", base=f"version: 1\nexperts:\n  a: {EXPERT}\n")
    sources = read_sources(path)
    files(tmp_path, top="nonsense", base="nonsense")
    assert list(parse_sources(sources).experts) == ["a"]


def test_a_text_may_be_tried_in_place_of_what_the_file_says(tmp_path: Path) -> None:
    path = files(tmp_path, top="extends: base.yaml\n", base=f"version: 1\nexperts:\n  a: {EXPERT}\n")
    changed = f"extends: base.yaml\nexperts:\n  b: {EXPERT}\n"
    assert list(parse_sources(read_sources(path, changed)).experts) == ["a", "b"]
    assert path.read_text("utf-8") == "extends: base.yaml\n"


def test_errors_carry_the_texts_that_they_are_in(tmp_path: Path) -> None:
    path = files(tmp_path, top="extends: base.yaml\n", base="version: [\n")
    assert refusal(path).texts == {"top.yaml": "extends: base.yaml\n", "base.yaml": "version: [\n"}
    files(tmp_path, base="version: 2\n")
    with pytest.raises(ConfigError) as caught:
        load_experts(path)
    assert caught.value.texts["base.yaml"] == "version: 2\n"


def test_what_is_no_text_is_told_in_its_own_file_and_what_is_not_there_in_the_one_that_names_it(tmp_path: Path) -> None:
    path = files(tmp_path, top="extends: base.yaml\ndomains: {legal: {examples: file:legal.txt}}\n")
    (tmp_path / "base.yaml").write_bytes("a: 1\nb: ü".encode("latin-1"))
    assert str(refusal(path)).startswith("base.yaml:2:4: is not in UTF-8")
    files(tmp_path, base="version: 1\n")
    assert str(refusal(path)) == "top.yaml:2:29: domains.legal.examples: legal.txt is not there"
    (tmp_path / "legal.txt").write_bytes(b"one\n\xff")
    assert str(refusal(path)).startswith("legal.txt:2:1: is not in UTF-8")


def test_problems_stand_file_by_file_and_in_the_order_of_their_lines(tmp_path: Path) -> None:
    path = files(tmp_path, top="extends: base.yaml\n\n\nxyzzy: 1\n", base="version: 2\nexperts: {}\nplugh: 1\n")
    with pytest.raises(ConfigError) as caught:
        load_experts(path)
    assert [(p.file, p.line) for p in caught.value.problems] == [
        ("top.yaml", 4),
        ("base.yaml", 1),
        ("base.yaml", 2),
        ("base.yaml", 3),
    ]


def test_a_text_alone_has_no_others(tmp_path: Path) -> None:
    path = files(tmp_path, top="extends: base.yaml\n", base=f"version: 1\nexperts:\n  a: {EXPERT}\n")
    with pytest.raises(ConfigError, match=r"base\.yaml was not read with the file that names it"):
        parse_sources(Sources(path, {"top.yaml": "extends: base.yaml\n"}))


def test_examples_that_are_missing_are_told_and_hide_no_other_mistake(tmp_path: Path) -> None:
    text = f"version: 2\nexperts: {{a: {EXPERT.replace('general', 'legal')}}}\ndomains: {{legal: {{examples: file:legal.txt}}}}\n"
    path = files(tmp_path, top=text)
    says = (
        "top.yaml:1:10: version: must be there and be 1: version: 1\ntop.yaml:3:29: domains.legal.examples: legal.txt "
    )
    with pytest.raises(ConfigError) as caught:
        load_experts(path)
    assert str(caught.value) == f"{says}is not there"
    with pytest.raises(ConfigError) as caught:
        parse_sources(Sources(path, {"top.yaml": text}))
    assert str(caught.value) == f"{says}was not read with the file that names it"


def test_what_is_too_large_or_too_many_is_not_read(tmp_path: Path) -> None:
    path = files(tmp_path, top="#" * (MAX_BYTES + 1))
    assert str(refusal(path)) == f"top.yaml:1:1: is larger than {MAX_BYTES // 1024} KiB, and so it was not read"
    many = {f"f{i}": "" for i in range(MAX_FILES)}
    path = files(tmp_path, top=f"extends: [{', '.join(f'{name}.yaml' for name in many)}]\n", **many)
    assert f"is one file too many: an experts.yaml refers to {MAX_FILES} at most" in str(refusal(path))


def test_the_digest_is_of_every_text_and_where_it_stands() -> None:
    def digest(**texts: str) -> str:
        return Sources(Path("a"), texts).digest

    assert digest(a="1", b="2") == digest(a="1", b="2")
    others = [digest(a="1"), digest(a="1", b="2"), digest(a="1", b="3"), digest(a="1", c="2"), digest(a="12", b="")]
    assert len(set(others)) == len(others)


@given(st.binary(max_size=120) | st.text("{}[]:,-#&*!|>'\"%@\n\t ab$~0", max_size=60).map(str.encode))
@settings(deadline=None, max_examples=150)
def test_any_bytes_are_an_experts_file_or_refused_with_every_problem_at_a_place(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(raw)
    with pytest.raises(ConfigError) as caught:
        load_experts(path)
    assert all(p.file == "any.yaml" and p.line >= 1 and p.column >= 1 for p in caught.value.problems)


def test_a_mount_of_kubernetes_is_read_by_its_links_and_swapped_as_one(tmp_path: Path) -> None:
    def mounted(name: str, expert: str) -> None:
        folder = tmp_path / name
        folder.mkdir()
        files(folder, top="extends: base.yaml\n", base=f"version: 1\nexperts:\n  {expert}: {EXPERT}\n")
        (tmp_path / "..new").symlink_to(name)
        (tmp_path / "..new").rename(tmp_path / "..data")

    mounted("..1", "old")
    for name in ("top.yaml", "base.yaml"):
        (tmp_path / name).symlink_to(Path("..data") / name)
    path = tmp_path / "top.yaml"
    before = read_sources(path)
    assert before.places == [path, tmp_path / "base.yaml"]
    mounted("..2", "new")
    assert list(parse_sources(read_sources(path)).experts) == ["new"]
    assert list(parse_sources(before).experts) == ["old"]
