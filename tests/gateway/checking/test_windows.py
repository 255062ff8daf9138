"""Context windows that are larger than what reads them."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.checking.windows import context_too_large
from router.cataloguing.catalog import load_catalog
from tests.gateway.checking.files import places, said

KNOWN = next(model for model in load_catalog().models.values() if model.context)


def launch(args: str, window: int, model: str = "ours") -> dict[str, Any]:
    return {"model": model, "upstream": {"launch": {"args": args}}, "context_window": window}


@pytest.mark.parametrize(("args", "window", "told"), [
    ("--max-model-len 8192", 8193, True),
    ("--max-model-len 8192", 8192, False),
    ("--max-model-len=8k", 8001, True),
    ("--max-model-len 8K", 8192, False),
    ("--max_model_len 1.5m", 1_500_001, True),
    ("--max-model-len auto", 10**9, False),
    ("--max-model-len", 10**9, False),
    ("", 10**9, False),
])  # fmt: skip
def test_by_the_flags_of_its_worker(args: str, window: int, told: bool) -> None:
    warned = said(context_too_large, {"one": launch(args, window)})
    assert places(warned) == ["context-too-large experts.one.context_window"] * told


def test_an_adapter_reads_what_its_worker_reads() -> None:
    adapter = {"upstream": {"worker": "base", "adapter": {"name": "a", "path": "/a"}}, "context_window": 5000}
    experts = {"base": launch("--max-model-len 4096", 4096), "sql": adapter}
    assert places(said(context_too_large, experts)) == ["context-too-large experts.sql.context_window"]


def test_by_the_catalogue_where_the_flags_say_nothing() -> None:
    assert KNOWN.context is not None
    for window, told in ((KNOWN.context, 0), (KNOWN.context + 1, 1)):
        warned = said(context_too_large, {"one": {"model": KNOWN.name, "context_window": window}})
        assert len(warned) == told
    assert str(KNOWN.context) in warned[0].words
    assert said(context_too_large, {"one": launch("--max-model-len 10m", KNOWN.context + 1, KNOWN.name)}) == []
    assert said(context_too_large, {"one": {"model": f"ours/{KNOWN.name}-yarn", "context_window": 10**8}}) == []
    hosted = {"model": KNOWN.name, "upstream": {"litellm": "together_ai/x"}, "context_window": 10**8}
    assert said(context_too_large, {"one": hosted}) == []
