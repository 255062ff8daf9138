"""What a reload changes, in words: every key by name, no value ever."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.reloading.changes import MOST_KEYS, Change, changes
from router.experts import ExpertsFile, parse_experts
from tests.fakes.memory import experts_file


def told(old: ExpertsFile, new: ExpertsFile) -> list[str]:
    return [str(change) for change in changes(old, new)]


def file(experts: dict[str, Any] | None = None, **sections: Any) -> ExpertsFile:
    made = experts_file(experts or {"one": {}})
    return ExpertsFile.model_validate(made.model_dump(exclude={"digest"}) | sections)


def test_the_same_file_changes_nothing_whatever_its_digest() -> None:
    assert changes(file(), file().model_copy(update={"digest": "other"})) == []


def test_experts_come_go_and_change() -> None:
    old = file({"one": {"price": {"input": 1, "output": 2}}, "gone": {}, "same": {}})
    new = file({"one": {"price": {"input": 1, "output": 3}, "max_in_flight": 7}, "came": {}, "same": {}})
    assert told(old, new) == [
        "expert gone removed",
        "expert one changed: max_in_flight, price.output",
        "expert came added",
    ]


def test_examples_are_counted_and_never_quoted() -> None:
    def with_domain(*examples: str) -> ExpertsFile:
        return file({"one": {"domains": {"zoo": 0.9}}}, domains={"zoo": {"examples": examples}})

    assert told(file(), with_domain("a", "b")) == [
        "expert one changed: domains.zoo, domains.general",
        "domain zoo added: +2 examples",
    ]
    assert told(with_domain("a", "b"), with_domain("b", "c", "d")) == ["domain zoo changed: +2 examples, -1 examples"]


def test_a_secret_that_changes_is_named_and_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_key(key: str) -> ExpertsFile:
        monkeypatch.setenv("ONE_KEY", key)
        upstream = "{vllm: [http://one.test/v1], api_key: ${ONE_KEY}}"
        return parse_experts(f"version: 1\nexperts:\n  one: {{model: m, domains: [general], upstream: {upstream}}}\n")

    (change,) = changes(with_key("hush-1"), with_key("hush-2"))
    assert change == Change("changed", "expert", "one", ("upstream.api_key",))
    assert "hush" not in str(change) + repr(change)


def test_the_other_sections() -> None:
    old = file(aliases={"gpt": "one"}, baseline="gpt-4o")
    new = file(aliases={"gpt": "auto", "mini": "one"}, baseline="gpt-4o-mini", router={"confidence_floor": 0.1})
    assert told(old, new) == ["router changed: confidence_floor", "baseline changed", "aliases changed: gpt, mini"]


def test_a_long_list_of_keys_is_cut() -> None:
    old, new = file(aliases={}), file(aliases={f"name-{i}": "one" for i in range(MOST_KEYS + 3)})
    assert told(old, new) == [f"aliases changed: {', '.join(f'name-{i}' for i in range(MOST_KEYS))}, 3 more"]


EXPERTS = st.dictionaries(
    st.sampled_from(["a", "b", "c"]),
    st.fixed_dictionaries(
        {"max_in_flight": st.none() | st.integers(1, 3), "hedge": st.sampled_from([None, 1.0, "p95"])}
    ),
    min_size=1,
)


@given(EXPERTS, EXPERTS)
def test_there_is_a_change_where_files_differ_and_none_where_they_do_not(old: Any, new: Any) -> None:
    assert (changes(file(old), file(new)) == []) == (file(old).experts == file(new).experts)
    assert changes(file(old), file(copy.deepcopy(old))) == []
    added = [c.name for c in changes(file(old), file(new)) if c.kind == "added"]
    assert added == [name for name in new if name not in old]
