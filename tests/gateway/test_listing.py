from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.listing import SHOWN, Listing, base_of, differences, lacks, names, read_listing, shown
from router.experts import Expert
from tests.fakes.adapters import Worker
from tests.fakes.memory import experts_file


def listing_of(worker: Worker) -> Listing:
    listing = read_listing(worker.answer("/v1/models", None, None)[1])
    assert listing is not None
    return listing


def expert(**changes: Any) -> Expert:
    return experts_file({"one": {"model": "base", **changes}}).experts["one"]


def lora(name: str = "sql", path: str | None = None, **changes: Any) -> Expert:
    adapter = {"name": name, "path": path} if path else name
    return expert(upstream={"vllm": ["http://a.test/v1"], "adapter": adapter}, **changes)


def found(spec: Expert, worker: Worker, base: str = "base") -> list[str]:
    return list(differences(spec, base, listing_of(worker)))


def test_vllm_s_list_is_read_and_an_adapter_has_the_window_of_its_parent() -> None:
    listing = listing_of(Worker(adapters={"sql": "/lora/sql"}))
    assert listing.final
    assert [listing.window(model) for model in ("base", "sql", "nope")] == [2048, 2048, None]
    assert listing.cards["sql"].root == "/lora/sql"


def test_others_than_vllm_may_answer_for_more_than_they_list() -> None:
    assert not listing_of(Worker(owner="llamacpp")).final
    assert not Listing({}).final


@pytest.mark.parametrize("body", [
    b"", b"[]", b"{}", b'{"data": {}}', b'{"data": [{}]}', b'{"data": [{"id": 5}]}', b"<html>", b"\xff", b"[" * 10_000,
    b'{"data": [{"id": "a", "max_model_len": "many"}]}', b'{"data": [{"id": "a", "max_model_len": -1}]}',
])  # fmt: skip
def test_what_is_no_list_of_models_is_none(body: bytes) -> None:
    assert read_listing(body) is None


@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
).map(lambda value: json.dumps({"data": [value]}).encode()))  # fmt: skip
def test_whatever_comes_is_read_or_not_and_never_raises(body: bytes) -> None:
    listing = read_listing(body)
    if listing is not None:
        assert lacks(expert(), listing) in (None, "model missing: base")
        list(differences(lora(context_window=5), "base", listing))
        names(listing)


def test_a_model_or_an_adapter_that_is_not_listed_is_missing() -> None:
    listing = listing_of(Worker(adapters={"sql": "/lora/sql"}))
    assert lacks(expert(), listing) is None
    assert lacks(lora(), listing) is None
    assert lacks(expert(model="other"), listing) == "model missing: other"
    assert lacks(lora("math"), listing) == "adapter missing: math"


def test_a_window_that_is_larger_than_the_server_s_is_told_and_a_smaller_one_is_not() -> None:
    worker = Worker(adapters={"sql": "/lora/sql"})
    wide = ["context window: 2049 in the file, 2048 at its server"]
    assert found(expert(context_window=2049), worker) == found(lora(context_window=2049), worker) == wide
    assert found(expert(context_window=2048), worker) == found(expert(), worker) == []
    worker.window = None
    assert found(expert(context_window=2049), worker) == []


def test_an_adapter_of_another_model_is_told_and_another_name_of_its_own_is_not() -> None:
    worker = Worker(base="base", adapters={"sql": "/lora/sql"})
    assert found(lora(), worker) == []
    assert found(lora(), worker, "llama") == ["adapter of another model: sql belongs to base, not to llama"]
    listing = listing_of(worker)
    cards = {**listing.cards, "alias": listing.cards["base"]}
    assert list(differences(lora(), "alias", Listing(cards))) == []


def test_an_adapter_that_is_a_model_there_or_comes_from_another_path_is_told() -> None:
    worker = Worker(adapters={"sql": "/lora/sql"})
    assert found(lora("base"), worker) == ["no adapter: base is a model of its own there"]
    assert found(lora(path="/lora/sql"), worker) == []
    (other,) = found(lora(path="/lora/sql-2"), worker)
    assert other.startswith("adapter from another path: unload sql")


def test_the_base_of_an_adapter_is_its_worker_s_model() -> None:
    worker = {"launch": {"lora_modules": {"math": "/lora/math"}}}
    file = experts_file({
        "base": {"model": "qwen", "upstream": worker},
        "sql": {"model": "ours", "upstream": {"worker": "base", "adapter": "sql"}},
        "math": {"model": "qwen", "upstream": {**worker, "adapter": "math"}},
    })  # fmt: skip
    assert [base_of(file, name) for name in ("base", "sql", "math")] == ["qwen"] * 3


def test_what_a_server_wrote_is_cut_and_fit_for_a_terminal() -> None:
    listing = read_listing(json.dumps({"data": [{"id": f"m\x1b[31m{i}"} for i in range(SHOWN + 3)]}).encode())
    assert listing is not None
    assert names(listing) == "m�[31m0, m�[31m1, m�[31m2, m�[31m3, m�[31m4 and 3 more"
    assert names(Listing({})) == "nothing"
    assert shown("x" * 100) == "x" * 80 + "…"
