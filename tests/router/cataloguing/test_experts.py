from __future__ import annotations

import textwrap
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.cataloguing.catalog import load_catalog
from router.cataloguing.experts import fitted, free_gpus
from router.cataloguing.fitting import fit
from router.errors import CatalogError
from router.experts import Expert, ExpertsFile, parse_experts
from router.prices import Price
from router.yamledit import with_entry
from tests.fakes.catalogs import model
from tests.fakes.memory import experts_file

BASE = """\
version: 1
router: {fallback: general}
experts:
  general:
    model: m
    domains: {general: 0.9}
    upstream: {vllm: [http://10.0.0.1:8000/v1]}
"""
FILE = parse_experts(BASE)


def written(lines: list[str], name: str) -> Expert:
    return parse_experts(with_entry(BASE, "experts", lines)).experts[name]


def test_an_entry_for_a_worker_that_is_launched_reads_as_a_person_would_write_it() -> None:
    found = fit(model(licence={"id": "Own", "kind": "research", "limits": "No money."}, context=16384), 12, 2)
    assert "\n".join(fitted("coder", found, FILE, None).lines()) == textwrap.dedent("""\
        coder:
          # Of Maker. Licence: Own: No money. At bf16 it takes 10.7 GB of each of 2 GPUs, by docs/catalog.md.
          model: Maker/Model-7B
          domains: [code, general]
          upstream:
            launch:
              engine: vllm
              args: [--enable-auto-tool-choice, --tool-call-parser, hermes, --tensor-parallel-size, 2]
              gpus: [0, 1]
          price: {input: 0.03, output: 0.06}  # USD per million tokens, as Host asked in 2026-06
          context_window: 16384
          capabilities: [tools, json_schema]
          fallbacks: [general]""")


def test_an_entry_for_a_worker_that_runs_has_its_address() -> None:
    expert = written(fitted("x", fit(model(), 80), FILE, "http://10.0.0.5:8000/v1").lines(), "x")
    assert [replica.url for replica in expert.upstream.vllm] == ["http://10.0.0.5:8000/v1"]
    assert expert.upstream.launch is None
    assert expert.context_window == 131072
    assert expert.price == Price(input=0.03, output=0.06)


@pytest.mark.parametrize(
    ("changes", "domains", "languages", "capabilities"),
    [
        ({"tasks": ["math", "reasoning"]}, {"math"}, set(), {"tools", "json_schema"}),
        ({"tasks": ["legal"]}, {"general"}, set(), {"tools", "json_schema"}),
        ({"tasks": ["general", "japanese"], "serve": []}, {"general"}, {"ja"}, {"json_schema"}),
        (
            {"tasks": ["bio", "vision"], "serve": ["--tool-call-parser=x"]},
            {"bio"},
            set(),
            {"tools", "json_schema", "vision"},
        ),
    ],
)
def test_what_its_maker_claims_becomes_domains_languages_and_capabilities(
    changes: dict[str, Any], domains: set[str], languages: set[str], capabilities: set[str]
) -> None:
    expert = written(fitted("x", fit(model(**changes), 80), FILE, None).lines(), "x")
    assert (set(expert.domains), set(expert.languages), set(expert.capabilities)) == (domains, languages, capabilities)


def test_a_domain_of_the_file_is_served_where_the_model_is_for_it() -> None:
    file = experts_file({"lawyer": {"domains": {"legal": 0.9}}})
    lines = fitted("x", fit(model(tasks=["legal", "general"]), 80), file, None).lines()
    assert "  domains: [general, legal]" in lines


def test_gpus_that_others_have_are_left_alone() -> None:
    upstream = {"launch": {"gpus": [0, 2]}}
    file = ExpertsFile.model_validate(
        {"version": 1, "experts": {"a": {"model": "m", "domains": {"code": 0.9}, "upstream": upstream}}}
    )
    assert free_gpus(file, 1) == [1]
    assert free_gpus(file, 3) == [1, 3, 4]
    assert "      gpus: [1, 3]" in fitted("x", fit(model(), 12, 2), file, None).lines()


def test_a_quantised_copy_is_served_in_its_place_and_not_quantised_anew() -> None:
    narrow = fit(model(), 10)
    assert narrow.quantised
    launch = written(fitted("x", narrow, FILE, None).lines(), "x").upstream.launch
    assert launch is not None
    assert "--quantization" in launch.args
    expert = written(fitted("x", narrow, FILE, None, quantised="Some/Model-AWQ").lines(), "x")
    assert expert.model == "Some/Model-AWQ"
    assert expert.upstream.launch is not None
    assert "--quantization" not in expert.upstream.launch.args
    assert expert.upstream.launch.args[-2:] == ("--max-model-len", "16384")


WORDS = (
    "yes", "123", "010", "0", "0x1f", "1_000", "[", "1e3", "~", "a: b", "{x}", "#c", "'", '"', "null", "é", "a,b", "- x", "-.5",
)  # fmt: skip


@pytest.mark.parametrize("word", WORDS)
def test_flags_stay_the_text_that_they_are_whatever_yaml_makes_of_them(word: str) -> None:
    found = fit(model(serve=["--flag", word]), 80)
    launch = written(fitted("x", found, FILE, None).lines(), "x").upstream.launch
    assert launch is not None
    assert launch.args == ("--flag", word)


@given(
    st.sampled_from(sorted(load_catalog().models)), st.sampled_from([8, 24, 48, 80, 141]), st.sampled_from([1, 2, 8])
)
@settings(max_examples=60, deadline=None)
def test_every_model_of_the_catalogue_makes_an_entry_that_the_file_takes(key: str, gpu: int, gpus: int) -> None:
    one = load_catalog().models[key]
    try:
        found = fit(one, gpu, gpus)
    except CatalogError:
        return
    expert = written(fitted(key, found, FILE, None).lines(), key)
    assert expert.model == one.name
    assert expert.upstream.launch is not None
    assert expert.upstream.launch.args == found.arguments
    assert len(expert.upstream.launch.gpus) == found.gpus
